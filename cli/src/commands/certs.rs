//! `mllm4rec certs`: certificates for a coordinator, its workers and its operator.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use coordinator::access::{Role, check_name};

use crate::args::Certs;
use crate::certificates::{Authority, Pair};
use crate::exit::{self, BadRequest};
use crate::terminal::print;

/// Hosts that every server certificate is for: the coordinator's own machine.
const OWN: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes an authority with three certificates, or one more of the authority that is there.
pub(crate) fn run(args: &Certs) -> Result<u8> {
    match args.add.as_slice() {
        [what, name] => add(args, what, name)?,
        _ => begin(args)?,
    }
    Ok(exit::DONE)
}

fn begin(args: &Certs) -> Result<()> {
    let folder = Folder::open(&args.out)?;
    folder.must_lack(&["ca", "server", "worker", "operator"])?;
    let (authority, own) = Authority::make(args.days)?;
    let server = authority.server(&hosts(args), args.days)?;
    let worker = authority.client(Role::Worker, "worker", args.days)?;
    let operator = authority.client(Role::Operator, "operator", args.days)?;
    for (name, pair) in [("ca", &own), ("server", &server), ("worker", &worker), ("operator", &operator)] {
        folder.write(name, pair)?;
    }
    print(advice(&args.out, args.host.first().map_or("localhost", String::as_str), args.days));
    Ok(())
}

fn add(args: &Certs, what: &str, name: &str) -> Result<()> {
    check_name(name).map_err(|e| BadRequest(e.to_string()))?;
    let folder = Folder::open(&args.out)?;
    let authority = folder.authority()?;
    let file = format!("{what}-{name}");
    folder.must_lack(&[&file])?;
    let pair = if what == "server" {
        authority.server(&hosts(args), args.days)?
    } else {
        let role: Role = what.parse().map_err(|e| BadRequest(format!("{e}; or `server`")))?;
        authority.client(role, name, args.days)?
    };
    folder.write(&file, &pair)?;
    let (certificate, key) = (folder.certificate(&file), folder.key(&file));
    // A coordinator is reached by these names alone.
    let names = if what == "server" { format!(" for {}", hosts(args).join(", ")) } else { String::new() };
    print(format_args!("{} and {}, valid{names} for {} days", certificate.display(), key.display(), args.days));
    Ok(())
}

fn hosts(args: &Certs) -> Vec<String> {
    let mut hosts = args.host.clone();
    hosts.extend(OWN.iter().filter(|own| !args.host.iter().any(|host| host == *own)).map(|own| (*own).to_owned()));
    hosts
}

/// The folder of certificates: `NAME.pem`, and `NAME-key.pem` for the owner alone.
struct Folder<'a>(&'a Path);

impl<'a> Folder<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.pem"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}-key.pem"))
    }

    /// Keys in use are not to be lost to a command that was typed twice.
    fn must_lack(&self, names: &[&str]) -> Result<()> {
        let files = names.iter().flat_map(|name| [self.certificate(name), self.key(name)]);
        match files.into_iter().find(|file| file.exists()) {
            None => Ok(()),
            Some(there) => Err(BadRequest(format!(
                "{} is there already and is never overwritten: use another folder, `--add` for one more certificate, or move it away",
                there.display()
            ))
            .into()),
        }
    }

    fn authority(&self) -> Result<Authority> {
        let key = self.key("ca");
        let pem = std::fs::read_to_string(&key).map_err(|e| {
            let words = format!("cannot read the authority's key {}: {e}", key.display());
            BadRequest(format!("{words}; `mllm4rec certs --out {}` without --add makes an authority", self.0.display()))
        })?;
        Authority::from_key(&pem).with_context(|| format!("{} is no key of an authority", key.display()))
    }

    fn write(&self, name: &str, pair: &Pair) -> Result<()> {
        create(&self.key(name), 0o600, &pair.key)?;
        create(&self.certificate(name), 0o644, &pair.certificate)
    }
}

fn create(path: &Path, mode: u32, text: &str) -> Result<()> {
    let written = File::options().create_new(true).write(true).mode(mode).open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => anyhow::Error::new(BadRequest(format!("{} is there already", path.display()))),
        _ => anyhow::Error::new(e).context(format!("cannot write {}", path.display())),
    })
}

fn advice(folder: &Path, host: &str, days: u32) -> String {
    let at = folder.display();
    format!(
        "certificates for {days} days are in {at}

the coordinator:
  mllm4rec coordinator --root URL --listen 0.0.0.0:7070 \\
    --tls-cert {at}/server.pem --tls-key {at}/server-key.pem --client-ca {at}/ca.pem
a worker (copy ca.pem, worker.pem and worker-key.pem to its machine):
  mllm4rec worker --coordinator https://{host}:7070 \\
    --tls-ca {at}/ca.pem --tls-cert {at}/worker.pem --tls-key {at}/worker-key.pem
you:
  mllm4rec ps --coordinator https://{host}:7070 \\
    --tls-ca {at}/ca.pem --tls-cert {at}/operator.pem --tls-key {at}/operator-key.pem

{at}/ca-key.pem signs for everybody: keep it where only you can read it; no command but `certs` needs it"
    )
}
