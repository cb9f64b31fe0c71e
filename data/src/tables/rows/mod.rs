//! One file per table: its row, its columns, and the way between the two.

mod candidates;
mod captions;
mod histories;
mod items;
mod metrics;
mod pictures;
mod rankings;
mod rejected;
mod target_ranks;

pub use candidates::CandidateRow;
pub use captions::{CaptionRow, CaptionStatus};
pub use histories::HistoryRow;
pub use items::ItemRow;
pub use metrics::MetricRow;
pub use pictures::PictureRow;
pub use rankings::RankingRow;
pub use rejected::RejectedRow;
pub use target_ranks::TargetRankRow;
