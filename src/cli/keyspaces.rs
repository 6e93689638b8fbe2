//! `keyspaces`: which there are.

use serde_json::json;

use super::args::StoreArgs;
use super::failure::{Failure, Outcome};
use super::output::Output;
use super::store::open_to_look;

pub(super) async fn list(store: &StoreArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let db = open_to_look(store).await?;
    let names = db.keyspaces();
    db.close().await?;
    if output.is_json() {
        output.json(&json!({ "keyspaces": names }))?;
    } else {
        for name in names {
            output.line(name)?;
        }
    }
    Ok(Outcome::Done)
}
