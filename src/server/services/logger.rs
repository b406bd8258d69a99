//! The `Logger` service: the log level, while the process runs.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};
use tracing_subscriber::filter::LevelFilter;

use crate::runtime::logging::LogControl;
use crate::server::context::ServerContext;
use crate::server::proto::logger::logger_server::Logger;
use crate::server::proto::logger::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use crate::server::proto::types;
use crate::server::proto::types::LogLevel;
use crate::server::services::answer::internal;

/// See above.
pub(super) struct LoggerService {
    context: Arc<ServerContext>,
}

impl LoggerService {
    pub(super) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
        }
    }

    fn logs(&self) -> &LogControl {
        &self.context.process.logs
    }

    fn answer(&self) -> Response<types::Logger> {
        Response::new(types::Logger {
            current_level: level_of(self.logs().level()).into(),
            launch_level: level_of(self.logs().launch_level()).into(),
        })
    }
}

#[async_trait]
impl Logger for LoggerService {
    async fn get_logger(
        &self,
        _: Request<GetLoggerRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        Ok(self.answer())
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let level = LogLevel::try_from(request.into_inner().new_level);
        let level = level.map_err(|_| Status::invalid_argument("unsupported log level"))?;
        let filter = filter_of(level).ok_or_else(|| {
            Status::invalid_argument("newLevel value cannot be LogLevel_UNSPECIFIED")
        })?;
        let set = self.logs().set(&filter.to_string());
        set.map_err(|error| internal("failed to set the log level", error))?;
        Ok(self.answer())
    }

    async fn reset_log_level(
        &self,
        _: Request<ResetLogLevelRequest>,
    ) -> Result<Response<types::Logger>, Status> {
        let reset = self.logs().reset();
        reset.map_err(|error| internal("failed to reset the log level", error))?;
        Ok(self.answer())
    }
}

/// Nothing is logged here that is worse than an error, so both levels above are silence.
fn filter_of(level: LogLevel) -> Option<LevelFilter> {
    Some(match level {
        LogLevel::Unspecified => return None,
        LogLevel::Panic | LogLevel::Fatal => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    })
}

fn level_of(filter: LevelFilter) -> LogLevel {
    match filter {
        LevelFilter::OFF => LogLevel::Fatal,
        LevelFilter::ERROR => LogLevel::Error,
        LevelFilter::WARN => LogLevel::Warn,
        LevelFilter::INFO => LogLevel::Info,
        LevelFilter::DEBUG => LogLevel::Debug,
        LevelFilter::TRACE => LogLevel::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_back_as_they_went() {
        for level in [
            LogLevel::Fatal,
            LogLevel::Error,
            LogLevel::Warn,
            LogLevel::Info,
            LogLevel::Debug,
            LogLevel::Trace,
        ] {
            assert_eq!(filter_of(level).map(level_of), Some(level));
        }
        assert_eq!(filter_of(LogLevel::Unspecified), None);
        assert_eq!(filter_of(LogLevel::Panic), Some(LevelFilter::OFF));
    }
}
