//! The `cluster-pack` executable.

fn main() -> std::process::ExitCode {
    cluster_pack::cli::main(std::env::args_os())
}
