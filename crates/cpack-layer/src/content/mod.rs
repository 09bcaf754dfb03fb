//! Turns files as installed into files as packed.
//!
//! | module | does |
//! | --- | --- |
//! | [`plan`] | decides for each file: copied, rewritten, made or left out |
//! | [`transform`] | carries that out and returns the entries of a layer |
//! | [`facts`] | names what packing learns on the way |
//! | [`pyc`] | tells whether byte-code is valid, and writes the unchecked-hash form that is shipped |
//! | [`marshal`] | gives the code in it one form and a path relative to the environment |
//! | [`compile`] | compiles sources without valid byte-code, in processes of the environment's interpreter |
//! | [`script`] | makes `bin/` scripts find the interpreter beside them |
//! | [`prefix_text`] | makes other text that names the environment's path relative, or reports it |
//! | [`conda`] | gives files of conda packages the placeholder of the environment's path back |
//! | [`direct_url`] | takes local paths and credentials out of `direct_url.json` |
//!
//! All but `transform` and `compile` are functions of bytes. Two environments with the same content give the same files,
//! whatever their paths and users, and whether or not their installer compiled byte-code.

pub mod compile;
mod conda;
pub mod direct_url;
pub mod facts;
mod marshal;
mod plan;
pub mod prefix_text;
pub mod pyc;
pub mod script;
pub mod transform;
