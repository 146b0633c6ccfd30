//! Looks at each call before its message is decoded.

use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{Extensions, Request, Response};
use keyward_proto::bus::rights::Denied;
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::Caller;

/// A layer for a gRPC server on connections of [`super::Accepted`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Rights;

impl<S> Layer<S> for Rights {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked(inner)
    }
}

#[derive(Debug, Clone)]
pub struct Checked<S>(S);

impl<S> Service<Request<Body>> for Checked<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = caller_of(request.extensions());
        match caller.map(|caller| caller.peer.may_call(request.uri().path())) {
            Ok(Ok(())) => Either::Left(self.0.call(request)),
            Ok(Err(words)) => Either::Right(ready(Ok(denied(&words).into_http()))),
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

/// Who sent a request with these extensions.
///
/// # Errors
/// It came over a connection that nobody has looked at.
pub fn caller_of(extensions: &Extensions) -> Result<&Caller, Status> {
    extensions.get::<Caller>().ok_or_else(|| Status::internal("a request of nobody"))
}

/// The answer to who may not.
pub fn denied(words: &Denied) -> Status {
    Status::permission_denied(words.to_string())
}
