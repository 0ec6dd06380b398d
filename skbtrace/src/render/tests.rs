//! What readers get to see, on made-up traffic.
