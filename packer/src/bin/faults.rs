//! `cluster-pack` with fail points, for the fault suite.

fn main() -> std::process::ExitCode {
    cluster_pack::cli::main(std::env::args_os())
}
