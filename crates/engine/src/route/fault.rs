//! The HTTP fault filter's configuration of a route (`envoy.extensions.filters.http.fault.v3.HTTPFault`).
//!
//! Invariant: a fault that cannot be read is an error of its route, never no fault.

use crate::error::{DecodeError, Decoded};
use crate::wire;
use fairlead_proto::envoy::all::envoy::extensions::filters::common::fault::v3::{
    FaultDelay, fault_delay::FaultDelaySecifier,
};
use fairlead_proto::envoy::http::fault::{self as proto, FaultAbort, fault_abort::ErrorType};
use fairlead_proto::envoy::types::{FractionalPercent, fractional_percent::DenominatorType};
use std::time::Duration;

/// Faults of a route; each is drawn by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delay {
    pub time: Duration,
    /// Of all requests.
    pub per_million: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// HTTP status of the answer.
    pub status: u16,
    /// Status of the answer to gRPC, where it is not what `status` maps to.
    pub grpc_status: Option<u32>,
    /// Of all requests.
    pub per_million: u32,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected<'a> {
    pub delay: Option<Duration>,
    /// After the delay.
    pub abort: Option<&'a Abort>,
}

impl Fault {
    pub(super) fn decode(fault: &proto::HttpFault) -> Decoded<Self> {
        for (present, field) in [
            (!fault.upstream_cluster.is_empty(), "upstream_cluster"),
            (!fault.headers.is_empty(), "headers"),
            (!fault.downstream_nodes.is_empty(), "downstream_nodes"),
            (fault.max_active_faults.is_some(), "max_active_faults"),
            (fault.response_rate_limit.is_some(), "response_rate_limit"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        Ok(Self {
            delay: fault.delay.as_ref().map(delay).transpose().map_err(|e| e.inside("delay"))?,
            abort: fault.abort.as_ref().map(abort).transpose().map_err(|e| e.inside("abort"))?,
        })
    }

    /// What happens to a request, by two random numbers below a million.
    pub fn draw(&self, for_delay: u32, for_abort: u32) -> Injected<'_> {
        Injected {
            delay: self.delay.as_ref().filter(|delay| for_delay < delay.per_million).map(|delay| delay.time),
            abort: self.abort.as_ref().filter(|abort| for_abort < abort.per_million),
        }
    }
}

fn delay(delay: &FaultDelay) -> Decoded<Delay> {
    match &delay.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(time)) => Ok(Delay {
            time: wire::duration(time, "fixed_delay")?,
            per_million: per_million(delay.percentage.as_ref()),
        }),
        _ => Err(DecodeError::new("fixed_delay", "is required")),
    }
}

fn abort(abort: &FaultAbort) -> Decoded<Abort> {
    let per_million = per_million(abort.percentage.as_ref());
    match &abort.error_type {
        Some(ErrorType::HttpStatus(status)) => {
            let known = u16::try_from(*status).ok().filter(|status| (200..600).contains(status));
            let status = known.ok_or_else(|| DecodeError::new("http_status", format!("{status} is not in 200-599")))?;
            Ok(Abort { status, grpc_status: None, per_million })
        }
        Some(ErrorType::GrpcStatus(grpc)) => {
            Ok(Abort { status: http_status(*grpc), grpc_status: Some(*grpc), per_million })
        }
        _ => Err(DecodeError::new("http_status", "or grpc_status is required")),
    }
}

/// None of the requests where no percentage is written (Envoy).
fn per_million(percent: Option<&FractionalPercent>) -> u32 {
    let Some(percent) = percent else { return 0 };
    let scale = match percent.denominator() {
        DenominatorType::Hundred => 10_000,
        DenominatorType::TenThousand => 100,
        DenominatorType::Million => 1,
    };
    percent.numerator.saturating_mul(scale).min(1_000_000)
}

/// Envoy `Grpc::Utility::grpcToHttpStatus`.
fn http_status(grpc: u32) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
