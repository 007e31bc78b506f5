//! What this server must know about a SQL text before the engine sees it.
//! Never runs anything and never judges permissions beyond what `guard` states.

pub(crate) mod guard;
pub(crate) mod kill;
pub(crate) mod lex;
pub(crate) mod shape;
