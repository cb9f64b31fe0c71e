//! The `mllm4rec` binary: every role and every command.

mod args;
mod certificates;
mod client;
mod cluster;
mod commands;
mod connection;
mod contact_sheet;
mod demo;
mod exit;
mod follow;
mod lock;
mod observed;
mod progress;
mod signals;
mod status;
mod tables;
mod target;
mod terminal;

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::Parser;

use args::{Args, Command, LogFormat, RunsAction};

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    if let Command::DecodePictures = args.command {
        // No logging, no runtime: the less there is, the less a bad picture can reach.
        return worker::decoders::serve(std::io::stdin().lock(), std::io::stdout().lock());
    }
    start_logging(&args);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            terminal::print_error(format_args!("error: cannot start the async runtime: {e}"));
            return exit::RETRY.into();
        }
    };
    // A panic must not wait for threads that wait for it.
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(obey(args.command))));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(Ok(code)) => code.into(),
        Ok(Err(e)) => {
            terminal::print_error(format_args!("error: {e:#}"));
            exit::code_of(&e).into()
        }
        Err(_) => {
            terminal::print_error("error: this is a fault of the program, please report what it said above");
            exit::RETRY.into()
        }
    }
}

/// Does what was asked for.
async fn obey(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(run) => commands::run::run(run).await,
        Command::Demo(demo) => commands::demo::run(demo).await,
        Command::Validate(validate) => commands::validate::run(&validate),
        Command::Plan(plan) => commands::plan::run(plan).await,
        Command::Outputs(outputs) => commands::outputs::run(outputs).await,
        Command::Show(show) => commands::show::run(show).await,
        Command::Runs(runs) => match runs.action {
            RunsAction::Compare(compare) => commands::compare::run(compare).await,
        },
        Command::Adapter(adapter) => commands::adapter::run(adapter.action).await,
        Command::Captions(captions) => commands::captions::run(captions).await,
        Command::Rm(rm) => commands::rm::run(rm).await,
        Command::Gc(gc) => commands::gc::run(gc).await,
        Command::Shop(shop) => commands::shop::run(&shop),
        Command::Doctor(doctor) => match &doctor.store {
            Some(url) => commands::doctor_store::run(url, doctor.json).await,
            None => commands::doctor::run(&doctor),
        },
        Command::Certs(certs) => commands::certs::run(&certs),
        Command::Token(token) => commands::token::run(&token),
        Command::Coordinator(coordinator) => commands::coordinator::run(coordinator).await,
        Command::Worker(worker) => commands::worker::run(worker).await,
        Command::Submit(submit) => commands::submit::run(submit).await,
        Command::Ps(ps) => commands::ps::run(ps).await,
        Command::Status(status) => commands::status::run(status).await,
        Command::Logs(logs) => commands::logs::run(logs).await,
        Command::Cancel(cancel) => commands::cancel::run(cancel).await,
        Command::Resume(resume) => commands::resume::run(resume).await,
        Command::DecodePictures => unreachable!("that has been seen to"),
    }
}

/// Logs go to standard error. `RUST_LOG` chooses; by default it is warnings, and of the servers of a cluster, which
/// nobody watches, every change of state.
fn start_logging(args: &Args) {
    let server = match &args.command {
        Command::Coordinator(_) => true,
        Command::Worker(worker) => !worker.with_parent,
        _ => false,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(if server { "info" } else { "warn" }));
    // Lines of the audit are known by their target.
    let audited = matches!(args.command, Command::Coordinator(_));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(audited);
    match args.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
