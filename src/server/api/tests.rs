//! Each bad input and each answer of the API, through [`super::Api::respond`], without a socket.
