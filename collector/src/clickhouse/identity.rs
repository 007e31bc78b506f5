//! Questions about the rows of one boot: what exactly is stored under its numbers. Never writes.

use bytes::Bytes;
use sonde_proto::model::time::Wall;
use uuid::Uuid;

use super::insert::{BootRange, instant};
use super::row::COLUMNS;
use super::{ClickHouseError, Client};

/// Most rows of one answer: twice a batch, so that two versions of each row can be seen.
const ROWS_MAX: usize = 2_000;

impl Client {
    /// The different rows that are stored under these numbers, ascending, as the bytes that [`super::row::RowsEncoder`]
    /// makes of them under the nil tenant. At most 2,000 rows.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn rows_of(&self, piece: BootRange, from: Wall, until: Wall) -> Result<Bytes, ClickHouseError> {
        let mut columns: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        let tenant = format!("toUUID('{}') AS {}", Uuid::nil(), columns[0]);
        columns[0] = &tenant;
        let BootRange { probe, boot, range } = piece;
        let statement = format!(
            "SELECT DISTINCT {} FROM samples WHERE slot_at >= {} AND slot_at < {} \
             AND probe_id = '{probe}' AND boot = '{boot}' AND seq BETWEEN {} AND {} ORDER BY seq LIMIT {ROWS_MAX}",
            columns.join(", "),
            instant(from),
            instant(until),
            range.first,
            range.last,
        );
        let read = async {
            let mut cursor = self.inner.reads.query(&statement).fetch_bytes("RowBinaryWithNamesAndTypes")?;
            cursor.collect().await
        };
        self.read(read).await
    }
}
