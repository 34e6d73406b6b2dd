//! The introduction on a new connection: user, database, name, in one round trip.

use redis::Cmd;

use super::{Connection, error_text};
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Authenticate,
    Select,
    Name,
}

/// Sends all steps at once and checks their replies.
pub(super) async fn introduce(connection: &mut Connection) -> Result<()> {
    let steps = steps(connection);
    for (_, cmd) in &steps {
        connection.queue(cmd);
    }
    connection.flush().await?;
    for (step, _) in steps {
        let reply = connection.reply().await?;
        if let Some(text) = error_text(&reply) {
            let text = connection.address.redact(&text);
            refused(step, text, connection.address.peer())?;
        }
    }
    Ok(())
}

fn steps(connection: &Connection) -> Vec<(Step, Cmd)> {
    let address = &connection.address;
    let mut steps = Vec::new();
    if address.username.is_some() || address.password.is_some() {
        let mut auth = redis::cmd("AUTH");
        if let Some(username) = &address.username {
            auth.arg(username);
        }
        auth.arg(address.password.as_ref().map_or("", |p| p.reveal()));
        steps.push((Step::Authenticate, auth));
    }
    if address.db != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(address.db);
        steps.push((Step::Select, select));
    }
    if let Some(name) = &address.client_name {
        let mut setname = redis::cmd("CLIENT");
        setname.arg("SETNAME").arg(name);
        steps.push((Step::Name, setname));
    }
    steps
}

fn refused(step: Step, reply: String, peer: String) -> Result<()> {
    match step {
        Step::Authenticate => Err(Error::Authentication { peer, reply }),
        Step::Select => Err(Error::from_reply(peer, reply)),
        // A name is a courtesy: a user who may not give one can still read.
        Step::Name => Ok(()),
    }
}
