//! Connections of clients: handshakes, binds, heartbeats, devices, rooms, delivery, and limits.

mod bad_resumes;
mod connect;
mod delivery;
mod devices;
mod heads;
mod heartbeat;
mod hostile_clients;
mod limits;
mod pings;
mod resume;
mod rooms;
mod vectors;
