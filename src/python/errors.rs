//! Errors as the exceptions of `polars_redis.exceptions`.

use pyo3::exceptions::{PyNotImplementedError, PyValueError};
use pyo3::prelude::*;

use crate::error::Error;

mod exceptions {
    use pyo3::import_exception;

    import_exception!(polars_redis.exceptions, AuthenticationError);
    import_exception!(polars_redis.exceptions, DecodeError);
    import_exception!(polars_redis.exceptions, MessageDecodeError);
    import_exception!(polars_redis.exceptions, ProtocolError);
    import_exception!(polars_redis.exceptions, RedisConnectionError);
    import_exception!(polars_redis.exceptions, RedisTimeoutError);
    import_exception!(polars_redis.exceptions, ResponseError);
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        exception(error, message)
    }
}

/// The exception that an error is, with this message.
pub fn exception(error: Error, message: String) -> PyErr {
    match error {
        Error::Argument(_) => PyValueError::new_err(message),
        Error::Unsupported(_) => PyNotImplementedError::new_err(message),
        Error::Connection { .. } => exceptions::RedisConnectionError::new_err(message),
        Error::Timeout { .. } => exceptions::RedisTimeoutError::new_err(message),
        Error::Authentication { .. } => exceptions::AuthenticationError::new_err(message),
        Error::Response { .. } => exceptions::ResponseError::new_err(message),
        Error::Protocol { .. } => exceptions::ProtocolError::new_err(message),
        Error::Decode(misfit) => exceptions::DecodeError::new_err((
            message,
            misfit.stream,
            misfit.entry_id.to_string(),
            misfit.field,
        )),
        Error::Message(misfit) => {
            exceptions::MessageDecodeError::new_err((message, misfit.channel, misfit.field))
        }
    }
}
