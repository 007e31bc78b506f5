//! What an engine thread does with one statement, from its text to the last byte of its answer.
//! Never touches a socket itself.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use super::session::{Session, empty_query};
use super::statement::{Statement, collect};
use crate::body::{Body, read_error};
use crate::codec::decode::decoder;
use crate::codec::header::{Joining, joining, names_and_types_length};
use crate::codec::hello;
use crate::error::{DbError, code};
use crate::ffi::{Class, Param};
use crate::output::{Gone, Output, WHOLE_BYTES_MAX};
use crate::registry::{Entry, Registry, Ticket};
use crate::request::Request;
use crate::sql::guard::{self, Caller, PINNED_SETTINGS};
use crate::sql::kill::{self, Kill};
use crate::sql::lex::quoted;
use crate::sql::shape::{Shape, has_word, is_same_statement, mentions, with_request_ids};

/// Rows handed to the engine at a time.
const APPEND_BYTES: usize = 256 << 10;
/// How long `KILL ... SYNC` waits for its statements.
const KILL_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often it repeats the kill meanwhile: a statement that was about to start may have missed the first.
const KILL_REPEAT_PERIOD: Duration = Duration::from_millis(100);

/// One statement with everything that belongs to it.
pub(crate) struct Job {
    /// What was asked for.
    pub request: Request,
    /// The request carried the administrator's token.
    pub is_admin: bool,
    /// The rest of the request.
    pub body: Body,
    /// Where the answer goes.
    pub output: Output,
    /// Its presence in the registry.
    pub entry: Entry,
}

/// Why a statement ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The client gets to know.
    Db(DbError),
    /// There is no client any more.
    Gone,
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<Gone> for Failure {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

/// The facts of this server that answers need.
#[derive(Debug, Clone)]
pub(crate) struct House {
    /// All statements in the house.
    pub registry: Arc<Registry>,
    /// Version of the engine.
    pub version: String,
    /// Name of this server.
    pub display_name: String,
}

/// Runs a statement to its end; afterwards the session is as before.
pub(super) fn execute(session: &mut Session, house: &House, job: Job) {
    let Job { request, is_admin, body, mut output, entry } = job;
    let ticket = entry.ticket();
    let body = decoder(body, request.encoding, request.is_blocks);
    let caller = Caller { is_admin, is_reader: request.is_reader };
    let mut run = Run { session, house, request: &request, caller, ticket: &ticket, query_id: entry.query_id() };
    let outcome = run.run(body, &mut output);
    session.reset();
    // The id is free, and a waiting KILL goes on, before the client reads the end of the answer.
    drop(entry);
    let _gone_is_fine_now = match outcome {
        Ok(()) => output.finish(),
        Err(Failure::Db(error)) => output.fail(&error),
        Err(Failure::Gone) => Ok(()),
    };
}

struct Run<'a> {
    session: &'a mut Session,
    house: &'a House,
    request: &'a Request,
    caller: Caller,
    ticket: &'a Ticket,
    query_id: &'a str,
}

impl Run<'_> {
    fn run(&mut self, mut body: Box<dyn Read + Send>, output: &mut Output) -> Result<(), Failure> {
        self.ticket.check()?;
        let Statement { text, shape } = collect(self.request, &mut *body)?;
        match shape {
            Shape::Empty => Err(empty_query().into()),
            Shape::InsertRows { head_end, format, rows_start } => {
                let (head, rows) = (&text[..head_end], &text[rows_start..]);
                self.insert(head, &format, rows.chain(body), output)
            }
            Shape::Kill => match kill::parse(&text) {
                Some(kill) => self.kill(&text, &kill, output),
                None => self.whole(&text, None, output),
            },
            Shape::Whole { format } => self.whole(&text, format, output),
        }
    }

    /// Streams rows into the engine; they are stored when the last of them has arrived, or not at all.
    fn insert(&mut self, head: &[u8], format: &str, mut rows: impl Read, output: &mut Output) -> Result<(), Failure> {
        self.check(head, &[head, b" FORMAT ", format.as_bytes()].concat())?;
        self.apply(Vec::new())?;
        let mut insert = self.session.connection.insert(head, format, &self.request.params).map_err(engine_error)?;
        let mut buffer = vec![0; APPEND_BYTES];
        loop {
            self.ticket.check()?;
            let count = rows.read(&mut buffer).map_err(|error| read_error(&error))?;
            // A failed append is explained by `finish`.
            if count == 0 || insert.append(&buffer[..count]).is_err() {
                break;
            }
        }
        output.count(insert.finish().map_err(engine_error)?);
        Ok(())
    }

    /// Runs a text that is in memory.
    fn whole(&mut self, text: &[u8], format: Option<String>, output: &mut Output) -> Result<(), Failure> {
        if self.request.client_revision >= hello::BLOCK_INFO_REVISION_MIN && is_same_statement(text, hello::STATEMENT) {
            let House { display_name, version, .. } = self.house;
            output.set_format("Native");
            return Ok(output.write(&hello::block(self.request.client_revision, display_name, version, "UTC"))?);
        }
        let class = self.check(text, text)?;
        let format = format.unwrap_or_else(|| self.request.format.clone());
        let has_rows = class == Class::ReadOnly || has_word(text, 0, "KILL");
        if has_rows {
            output.set_format(&format);
        }
        let text = with_request_ids(text);
        let joining = if class == Class::ReadOnly { self.joining(&text, &format) } else { Joining::Whole };
        if joining != Joining::Whole {
            self.apply(Vec::new())?;
            return self.select(&text, &format, joining, output);
        }
        let mut extra = vec![("max_result_bytes", self.result_bytes_max())];
        if has_word(&text, 0, "INSERT") {
            // The guard has seen the expressions in these VALUES.
            extra.extend(PINNED_SETTINGS.map(|name| (name, "1".to_owned())));
        }
        self.apply(extra)?;
        let answer = self.session.connection.query(&text, &format, &self.request.params).map_err(engine_error)?;
        output.count(answer.counters());
        Ok(output.write(answer.bytes())?)
    }

    /// Sends the pieces of an answer as the engine makes them.
    fn select(&mut self, text: &[u8], format: &str, joining: Joining, output: &mut Output) -> Result<(), Failure> {
        let mut select = self.session.connection.select(text, format, &self.request.params).map_err(engine_error)?;
        let mut header: Option<Vec<u8>> = None;
        while let Some(piece) = select.fetch().map_err(engine_error)? {
            self.ticket.check()?;
            output.count(piece.counters());
            let bytes = piece.bytes();
            let rows = match (&header, joining) {
                (_, Joining::Append | Joining::Whole) => bytes,
                (Some(header), Joining::DropNamesAndTypes) => {
                    bytes.strip_prefix(header.as_slice()).ok_or_else(changed_header)?
                }
                (None, Joining::DropNamesAndTypes) => {
                    let length = names_and_types_length(bytes).ok_or_else(changed_header)?;
                    header = Some(bytes[..length].to_vec());
                    bytes
                }
            };
            output.write(rows)?;
        }
        Ok(())
    }

    /// Marks the statements as killed, tells the engine, and waits for them if asked to.
    fn kill(&mut self, text: &[u8], kill: &Kill, output: &mut Output) -> Result<(), Failure> {
        self.check(text, text)?;
        let others: Vec<String> = kill.query_ids.iter().filter(|id| *id != self.query_id).cloned().collect();
        let found = self.house.registry.kill(&others);
        let list = found.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(", ");
        let mut is_gone = found.is_empty();
        let mut waited = Duration::ZERO;
        while !is_gone {
            self.session.value(&format!("KILL QUERY WHERE Settings['log_comment'] IN ({list}) ASYNC"))?;
            is_gone = self.house.registry.wait_until_gone(&found, KILL_REPEAT_PERIOD);
            waited += KILL_REPEAT_PERIOD;
            if !kill.waits {
                break;
            }
            if !is_gone && waited >= KILL_WAIT_MAX {
                let sentence = "KILL QUERY ... SYNC: the query is still running after 60 seconds.";
                return Err(DbError::new(code::TIMEOUT_EXCEEDED, "TIMEOUT_EXCEEDED", sentence).into());
            }
        }
        let status = if is_gone { "finished" } else { "waiting" };
        let rows = format!(
            "SELECT '{status}' AS kill_status, arrayJoin(CAST([{list}], 'Array(String)')) AS query_id, 'default' AS user, '' AS query"
        );
        output.set_format(&self.request.format);
        let answer = self.session.connection.query(rows.as_bytes(), &self.request.format, &[]).map_err(engine_error)?;
        Ok(output.write(answer.bytes())?)
    }

    /// Asks the engine's parser and the guard. `visible` is what the guard reads, `complete` what the parser needs.
    fn check(&mut self, visible: &[u8], complete: &[u8]) -> Result<Class, Failure> {
        let analysis = self.session.connection.classify(complete);
        match guard::check(visible, analysis, self.caller) {
            Ok(()) => Ok(analysis.class),
            Err(error) if analysis.class == Class::Unknown && error.code == code::SYNTAX_ERROR => {
                Err(self.syntax_error(complete).unwrap_or(error).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The engine's own words about a text that does not parse, without running it.
    fn syntax_error(&mut self, text: &[u8]) -> Option<DbError> {
        let text = std::str::from_utf8(text).ok()?;
        let value = text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n");
        let params: [Param; 1] = [("text".to_owned(), value)];
        let said = self.session.connection.query(b"SELECT formatQuery({text:String})", "Null", &params).err()?;
        let error = DbError::from_engine(said.split(": In scope SELECT formatQuery").next()?);
        let error = DbError { text: format!("{}. (SYNTAX_ERROR)", error.text.trim_end_matches('.')), ..error };
        (error.code == code::SYNTAX_ERROR).then_some(error)
    }

    /// Sets database and settings; `extra` wins over the request.
    fn apply(&mut self, extra: Vec<(&str, String)>) -> Result<(), Failure> {
        let mut settings = vec![("log_comment".to_owned(), self.query_id.to_owned())];
        settings.extend(self.request.settings.iter().filter(|(name, _)| name != "log_comment").cloned());
        settings.retain(|(name, _)| extra.iter().all(|(known, _)| known != name));
        settings.extend(extra.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(self.session.apply(&self.request.database, &settings)?)
    }

    /// The engine streams SELECT only. Totals, extremes and binary types change what stands around the rows, so such answers are made in one piece.
    fn joining(&self, text: &[u8], format: &str) -> Joining {
        let is_unusual = |(name, _): &(String, String)| name == "extremes" || name.starts_with("output_format_binary");
        let unusual_words = ["TOTALS", "extremes", "output_format_binary_encode_types_in_binary_format"];
        let is_select = has_word(text, 0, "SELECT") || has_word(text, 0, "WITH");
        if !is_select
            || self.request.settings.iter().any(is_unusual)
            || unusual_words.iter().any(|word| mentions(text, word))
        {
            return Joining::Whole;
        }
        joining(format)
    }

    /// The client's own bound if it is lower than ours.
    fn result_bytes_max(&self) -> String {
        let asked = self.request.settings.iter().find(|(name, _)| name == "max_result_bytes");
        let asked = asked.and_then(|(_, value)| value.parse::<usize>().ok()).filter(|bytes| *bytes > 0);
        asked.map_or(WHOLE_BYTES_MAX, |bytes| bytes.min(WHOLE_BYTES_MAX)).to_string()
    }
}

fn engine_error(text: impl AsRef<str>) -> Failure {
    Failure::Db(DbError::from_engine(text.as_ref()))
}

fn changed_header() -> Failure {
    let sentence = "The engine changed the header in the middle of an answer.";
    Failure::Db(DbError::new(code::UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", sentence))
}
