//! The introduction on a new connection: user, database, name, in one round trip.

use std::io;

use redis::{Cmd, Value};

use super::{Connection, error_text};
use crate::address::Address;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Authenticate,
    Select,
    Name,
    Greet,
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
        match error_text(&reply) {
            Some(text) => refused(step, &text, &connection.address)?,
            None if is_due(step, &reply) => {}
            None => {
                return Err(Error::Protocol {
                    context: connection.address.peer(),
                    reason: "the peer does not answer as Redis does".into(),
                });
            }
        }
    }
    Ok(())
}

/// Whether this is the step's reply where all is well.
fn is_due(step: Step, reply: &Value) -> bool {
    match reply {
        Value::Okay => step != Step::Greet,
        Value::SimpleString(text) => step == Step::Greet && text == "PONG",
        _ => false,
    }
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
    if steps.is_empty() {
        // Whoever does not answer this is no server, or has no place for us:
        // better known now than in the middle of a read.
        steps.push((Step::Greet, redis::cmd("PING")));
    }
    steps
}

fn refused(step: Step, reply: &str, address: &Address) -> Result<()> {
    let peer = address.peer();
    if reply.starts_with("ERR max number of clients") {
        return Err(Error::Connection {
            peer,
            reason: reply.to_owned(),
            kind: io::ErrorKind::ConnectionRefused,
        });
    }
    let error = Error::from_reply(peer.clone(), reply, address);
    match step {
        _ if error.is_transient() => Err(error),
        Step::Authenticate => Err(Error::Authentication {
            peer,
            // The rest of the text is what was sent, the password with it.
            reply: address.redact(reply.split(" with args ").next().unwrap_or_default()),
        }),
        Step::Select => Err(error),
        // A name is a courtesy: a user who may not give one can still read. Nor
        // need one be allowed to ask whether anybody is there.
        Step::Name | Step::Greet if reply.starts_with("NOAUTH") => Err(error),
        Step::Name | Step::Greet => Ok(()),
    }
}
