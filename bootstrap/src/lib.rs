//! Makes a packed environment appear on a node and becomes its interpreter.

pub mod extract;
