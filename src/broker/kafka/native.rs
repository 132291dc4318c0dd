//! librdkafka calls that the `rdkafka` crate does not wrap.
//!
//! Each function takes types of the crate and keeps no pointer after it returns.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

/// A librdkafka pointer with the function that frees it.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Self, KafkaError> {
        NonNull::new(pointer).map(|pointer| Self(pointer, free)).ok_or(KafkaError::Canceled)
    }

    fn pointer(&self) -> *mut T {
        self.0.as_ptr()
    }
}

#[allow(unsafe_code)]
impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the constructor got the pointer from librdkafka with the function that frees it; no other code frees
        // it.
        unsafe { (self.1)(self.pointer()) }
    }
}

/// Asks one broker for Kafka's id of a topic (KIP-516), as `kafka-topics --describe` prints it. `None` if the broker
/// has no ids (before Kafka 2.8). Blocks for at most `within`.
///
/// # Errors
/// No broker answered, or the topic is missing.
#[allow(unsafe_code)]
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    broker: i32,
    within: Duration,
) -> Result<Option<String>, KafkaError> {
    let name = CString::new(topic).map_err(|_| code(RDKafkaErrorCode::InvalidTopic))?;
    let millis = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    // SAFETY: `client` outlives all pointers below, which are freed at the end of this function. `name` outlives the
    // call that copies it. The result and its fields belong to `event`, which lives until the end of this function.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = Owned::new(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned::new(sys::rd_kafka_AdminOptions_new(rk, operation), sys::rd_kafka_AdminOptions_destroy)?;
        let set = sys::rd_kafka_AdminOptions_set_request_timeout(options.pointer(), millis, std::ptr::null_mut(), 0);
        succeeded(set)?;
        let set = sys::rd_kafka_AdminOptions_set_broker(options.pointer(), broker, std::ptr::null_mut(), 0);
        succeeded(set)?;
        let queue = Owned::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        sys::rd_kafka_DescribeTopics(rk, topics.pointer(), options.pointer(), queue.pointer());
        // The request times out first; the remaining time is for its answer to pass through librdkafka's threads.
        let event = sys::rd_kafka_queue_poll(queue.pointer(), millis.saturating_add(500));
        let event =
            Owned::new(event, sys::rd_kafka_event_destroy).map_err(|_| code(RDKafkaErrorCode::OperationTimedOut))?;
        succeeded(sys::rd_kafka_event_error(event.pointer()))?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.pointer());
        if result.is_null() {
            return Err(KafkaError::Canceled);
        }
        let mut count = 0;
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if found.is_null() || count != 1 {
            return Err(code(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let found = *found;
        let error = sys::rd_kafka_TopicDescription_error(found);
        if !error.is_null() {
            succeeded(sys::rd_kafka_error_code(error))?;
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(found);
        let bits = (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id));
        if bits == (0, 0) {
            return Ok(None);
        }
        let text = CStr::from_ptr(sys::rd_kafka_Uuid_base64str(id));
        Ok(Some(text.to_string_lossy().into_owned()))
    }
}

/// Leader epoch in which a record was written; it is the same at each read. −1 if the broker stored none.
#[allow(unsafe_code)]
pub(super) fn leader_epoch(message: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the message is borrowed for the call, which only reads it.
    unsafe { sys::rd_kafka_message_leader_epoch(message.ptr()) }
}

/// Broker that a record was fetched from. −1 if librdkafka does not know it.
#[allow(unsafe_code)]
pub(super) fn broker(message: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the message is borrowed for the call, which only reads it.
    unsafe { sys::rd_kafka_message_broker_id(message.ptr()) }
}

/// Sets the user and password of a client (PLAIN, SCRAM), which uses them for its next connection.
///
/// # Errors
/// The client was not created with a SASL password mechanism.
#[allow(unsafe_code)]
pub(super) fn set_credentials<C: ClientContext>(
    client: &Client<C>,
    user: &str,
    password: &str,
) -> Result<(), KafkaError> {
    let text = |text: &str| CString::new(text).map_err(|_| code(RDKafkaErrorCode::InvalidArgument));
    let (user, password) = (text(user)?, text(password)?);
    // SAFETY: the client is borrowed for the call, which copies both texts; the error, if any, is freed here.
    unsafe {
        let error = sys::rd_kafka_sasl_set_credentials(client.native_ptr(), user.as_ptr(), password.as_ptr());
        match Owned::new(error, sys::rd_kafka_error_destroy) {
            Err(_) => Ok(()),
            Ok(error) => succeeded(sys::rd_kafka_error_code(error.pointer())),
        }
    }
}

fn succeeded(code: RDKafkaRespErr) -> Result<(), KafkaError> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(self::code(code.into())),
    }
}

fn code(code: RDKafkaErrorCode) -> KafkaError {
    KafkaError::MetadataFetch(code)
}
