//! Sample plugins from end to end, each with its own back ends.

mod calls;
mod jwks;
mod qr_login;
