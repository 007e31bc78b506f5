//! ClickHouse's HTTP interface: routes, login, and the way of a request to the pool and back.
//! Never runs a statement and never decodes a body.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use subtle::ConstantTimeEq;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::body::{Body, Start};
use crate::engine::{Job, Lane, Pool};
use crate::error::{DbError, code};
use crate::multipart;
use crate::output::{Facts, Head, Output, PIECES_QUEUED};
use crate::request::{Login, Request};
use crate::sql::shape::has_word;

/// The body of an answer.
pub(crate) type AnswerBody = BoxBody<Bytes, Infallible>;

/// Longest id of a statement; ids are UUIDs or batch names.
const QUERY_ID_BYTES_MAX: usize = 256;

/// What the server needs to answer.
pub(crate) struct Server {
    /// The engine threads. Shared with nobody else once all connections are closed.
    pub pool: Pool,
    /// The password of the user `default`, if one is wanted.
    pub password: Option<String>,
    /// The administrator's token, if there is one.
    pub admin_token: Option<String>,
}

impl Server {
    /// Answers one request.
    pub(crate) async fn answer(self: Arc<Self>, request: http::Request<Incoming>) -> Response<AnswerBody> {
        let is_head = request.method() == Method::HEAD;
        let has_query = request.uri().query().is_some();
        let is_get = is_head || request.method() == Method::GET;
        let mut response = match request.uri().path() {
            "/ping" | "/replicas_status" if is_get => plain(StatusCode::OK, "Ok.\n".to_owned()),
            "/" if is_get && !has_query => plain(StatusCode::OK, "Ok.\n".to_owned()),
            "/" if is_get || request.method() == Method::POST => match self.query(request).await {
                Ok(response) => response,
                Err(error) => self.refusal(&error),
            },
            "/" | "/ping" | "/replicas_status" => {
                plain(StatusCode::METHOD_NOT_ALLOWED, "Send statements with GET or POST.\n".to_owned())
            }
            path => plain(
                StatusCode::NOT_FOUND,
                format!(
                    "There is no handle {path}\n\nUse / or /ping for health checks.\nSend queries from your program with POST method or GET /?query=...\n"
                ),
            ),
        };
        let display_name = HeaderValue::from_str(&self.pool.house().display_name);
        if let Ok(display_name) = display_name {
            response.headers_mut().insert("x-clickhouse-server-display-name", display_name);
        }
        if is_head { response.map(|_| empty()) } else { response }
    }

    async fn query(&self, http: http::Request<Incoming>) -> Result<Response<AnswerBody>, DbError> {
        let (parts, incoming) = http.into_parts();
        let mut request = Request::read(&parts.method, parts.uri.query().unwrap_or(""), &parts.headers)?;
        let start = self.start(&mut request, incoming).await?;
        self.check_login(&request.login)?;
        let is_admin = self.is_admin(request.admin_token.as_deref())?;
        let query_id = match request.query_id.as_str() {
            "" => uuid::Uuid::new_v4().to_string(),
            id if id.len() <= QUERY_ID_BYTES_MAX => id.to_owned(),
            _ => {
                return Err(DbError::new(
                    code::BAD_ARGUMENTS,
                    "BAD_ARGUMENTS",
                    "Parameter query_id is longer than 256 bytes.",
                ));
            }
        };
        let house = self.pool.house();
        let entry = house.registry.enter(&query_id)?;
        let lane = lane(&request, &start);
        let facts = Facts {
            query_id,
            version: house.version.clone(),
            display_name: house.display_name.clone(),
            form: request.form,
            waits_for_end: request.waits_for_end,
        };
        let (head, head_arrives) = oneshot::channel();
        let (pieces, pieces_arrive) = mpsc::channel(PIECES_QUEUED);
        let output = Output::new(head, pieces, Handle::current(), facts);
        let body = Body::new(start, Handle::current(), entry.ticket());
        self.pool.submit(lane, Job { request, is_admin, body, output, entry })?;
        let Head { status, headers } = head_arrives.await.map_err(|_| {
            DbError::new(code::UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", "The engine thread gave no answer.")
        })?;
        let mut response = Response::new(Pieces(pieces_arrive).boxed());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Reads the start of the body; a form is read whole, because it holds the statement and its parameters.
    async fn start(&self, request: &mut Request, incoming: Incoming) -> Result<Start, DbError> {
        let start = Start::read(incoming).await?;
        let Some(boundary) = request.boundary.take() else { return Ok(start) };
        for (name, value) in multipart::fields(&start.whole()?, &boundary)? {
            request.set(&name, &value)?;
        }
        Ok(Start::default())
    }

    fn check_login(&self, login: &Login) -> Result<(), DbError> {
        let user = login.user.as_deref().filter(|user| !user.is_empty()).unwrap_or("default");
        let Some(password) = &self.password else { return Ok(()) };
        let given = login.password.as_deref().unwrap_or("");
        let is_right = bool::from(given.as_bytes().ct_eq(password.as_bytes()));
        if user == "default" && is_right {
            return Ok(());
        }
        let sentence =
            format!("{user}: Authentication failed: password is incorrect, or there is no user with such name.");
        Err(DbError::new(code::AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", &sentence))
    }

    fn is_admin(&self, given: Option<&str>) -> Result<bool, DbError> {
        let Some(given) = given else { return Ok(false) };
        let expected = self.admin_token.as_deref().unwrap_or("");
        if !expected.is_empty() && bool::from(given.as_bytes().ct_eq(expected.as_bytes())) {
            return Ok(true);
        }
        Err(DbError::new(
            code::ACCESS_DENIED,
            "ACCESS_DENIED",
            "Header X-Sonde-Admin does not hold the administrator's token.",
        ))
    }

    fn refusal(&self, error: &DbError) -> Response<AnswerBody> {
        let mut response = plain(error.status(), error.body(&self.pool.house().version));
        response.headers_mut().insert("x-clickhouse-exception-code", HeaderValue::from(error.code));
        response
    }
}

/// Kills have their own lane. A compressed text is not looked at: it takes the common one.
fn lane(request: &Request, start: &Start) -> Lane {
    let text = if request.query.is_empty() { start.first() } else { request.query.as_bytes() };
    if has_word(text, 0, "KILL") { Lane::Kills } else { Lane::Statements }
}

fn plain(status: StatusCode, text: String) -> Response<AnswerBody> {
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

fn empty() -> AnswerBody {
    Full::default().boxed()
}

/// The pieces of an answer as they come from the engine thread.
struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
