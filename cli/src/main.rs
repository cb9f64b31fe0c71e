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
mod logging;
mod named_files;
mod observed;
mod progress;
mod signals;
mod status;
mod tables;
mod target;
mod terminal;

use std::panic::{AssertUnwindSafe, catch_unwind};

use clap::Parser;

use args::{Args, Command, RunsAction};

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    if let Command::DecodePictures = args.command {
        // No logging, no runtime: the less there is, the less a bad picture can reach.
        return worker::decoders::serve(std::io::stdin().lock(), std::io::stdout().lock());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            terminal::print_error(format_args!("error: cannot start the async runtime: {e}"));
            return exit::RETRY.into();
        }
    };
    let traces = {
        let _within = runtime.enter();
        match logging::start(&args) {
            Ok(traces) => traces,
            Err(e) => {
                terminal::print_error(format_args!("error: {e:#}"));
                return exit::code_of(&e).into();
            }
        }
    };
    // A panic must not wait for threads that wait for it.
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(obey(args.command))));
    traces.finish();
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
        Command::K8s(k8s) => commands::k8s::run(&k8s),
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
