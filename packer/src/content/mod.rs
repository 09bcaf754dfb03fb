//! Turns files as installed into files as packed.
//!
//! | module | does |
//! | --- | --- |
//! | [`plan`] | decides what becomes of each file: copied, rewritten, made or left out |
//! | [`transform`] | carries that out and gives the entries of a layer |
//! | [`pyc`] | tells whether byte-code is valid, and writes the unchecked-hash form that is shipped |
//! | [`marshal`] | gives the code in it one form and a path relative to the environment |
//! | [`compile`] | compiles what has no valid byte-code, in processes of the environment's interpreter |
//! | [`script`] | makes `bin/` scripts find the interpreter beside them |
//! | [`prefix_text`] | makes other text that names the environment's path relative, or tells of it |
//! | [`record`] | makes `RECORD` list what is shipped |
//! | [`direct_url`] | takes local paths and credentials out of `direct_url.json` |
//!
//! All but `transform` and `compile` are functions of bytes. Two environments with the same content give the same files,
//! wherever they lie, whoever made them, and whether or not their installer compiled byte-code.

pub mod compile;
pub mod direct_url;
pub mod marshal;
pub mod plan;
pub mod prefix_text;
pub mod pyc;
pub mod record;
pub mod script;
pub mod transform;
