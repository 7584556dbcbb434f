//! ACLs and quotas of a cluster: what is set, and setting it.
//!
//! Neither rdkafka nor, for quotas, librdkafka has calls for them, so these five requests are spoken here, in the
//! protocol's own types and over our own TLS. Any broker answers them. Must never take away more than it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClientQuotasRequest, RequestHeader,
    ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use rustls::pki_types::ServerName;
use ryggrad_bridge_core::access::kafka_access::{Binding, Change, Operation, Quota, Resource, Rights};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::NoAuthorizer;
use crate::{Connection, Error, Remedy};

/// To connect, and for each answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Changes of one request: a broker takes it as a whole.
const CHANGES_MAX: usize = 500;

/// The protocol's numbers.
const ANY: i8 = 1;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;
/// Of the components of a quota: whatever their names.
const ANY_NAME: i8 = 2;

const BYTE_RATE: &str = "consumer_byte_rate";
const REQUEST_PERCENTAGE: &str = "request_percentage";

const RESOURCES: [(i8, Resource); 4] = [(2, Resource::Topic), (3, Resource::Group), (4, Resource::Cluster), (5, Resource::TransactionalId)];

const OPERATIONS: [(i8, Operation); 8] = [
    (2, Operation::All),
    (3, Operation::Read),
    (4, Operation::Write),
    (5, Operation::Create),
    (6, Operation::Delete),
    (7, Operation::Alter),
    (8, Operation::Describe),
    (10, Operation::DescribeConfigs),
];

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A conversation with one broker.
pub struct AccessControl {
    stream: Box<dyn Stream>,
    asked: i32,
}

impl AccessControl {
    /// Connects to the first broker that answers.
    pub async fn connect(connection: &Connection) -> Result<Self, Error> {
        let doing = || format!("talk to Kafka at {} about ACLs", connection.bootstrap);
        let tls = connection.tls().map_err(|error| Error::other(doing(), Remedy::Die, error))?;
        let mut last = None;
        for broker in connection.bootstrap.split(',').map(str::trim) {
            match tokio::time::timeout(TIMEOUT, open(broker, tls.clone())).await {
                Ok(Ok(stream)) => return Ok(Self { stream, asked: 0 }),
                Ok(Err(error)) => last = Some(Error::other(doing(), Remedy::Retry, error)),
                Err(late) => last = Some(Error::other(doing(), Remedy::Retry, late)),
            }
        }
        Err(last.unwrap_or_else(|| Error::other(doing(), Remedy::Die, "no address is given")))
    }

    /// All that is set.
    pub async fn rights(&mut self) -> Result<Rights, Error> {
        let doing = "read the ACLs";
        let request = DescribeAclsRequest::default().with_resource_type_filter(ANY).with_pattern_type_filter(ANY);
        let request = request.with_resource_name_filter(None).with_principal_filter(None).with_host_filter(None);
        let answer = self.ask(request.with_operation(ANY).with_permission_type(ANY), 2, doing).await?;
        accepted(doing, answer.error_code, answer.error_message)?;
        let mut rights = Rights::default();
        for found in answer.resources {
            rights.bindings.extend(found.acls.iter().map(|acl| Binding {
                resource: named(&RESOURCES, found.resource_type).unwrap_or(Resource::Other(found.resource_type)),
                name: found.resource_name.to_string(),
                is_prefix: found.pattern_type == PREFIXED,
                principal: acl.principal.to_string(),
                host: acl.host.to_string(),
                operation: named(&OPERATIONS, acl.operation).unwrap_or(Operation::Other(acl.operation)),
                is_allowed: acl.permission_type == ALLOW,
            }));
        }
        rights.quotas = self.quotas().await?;
        Ok(rights)
    }

    async fn quotas(&mut self) -> Result<BTreeMap<String, Quota>, Error> {
        let doing = "read the quotas";
        let users = ComponentData::default().with_entity_type(text("user")).with_match_type(ANY_NAME).with_match(None);
        // Strict: of users as such, not of a user's single clients.
        let answer = self.ask(DescribeClientQuotasRequest::default().with_components(vec![users]).with_strict(true), 1, doing).await?;
        accepted(doing, answer.error_code, answer.error_message)?;
        let mut quotas = BTreeMap::new();
        for entry in answer.entries.unwrap_or_default() {
            let Some(user) = entry.entity.first().and_then(|entity| entity.entity_name.clone()) else { continue };
            let value = |key: &str| entry.values.iter().find(|value| value.key.as_str() == key).map(|value| value.value as u64);
            let (rate, share) = (value(BYTE_RATE), value(REQUEST_PERCENTAGE));
            if rate.is_none() && share.is_none() {
                continue;
            }
            let quota = Quota { consumer_byte_rate: rate.unwrap_or_default(), request_percentage: share.unwrap_or_default() };
            quotas.insert(user.to_string(), quota);
        }
        Ok(quotas)
    }

    /// Carries changes out, in their order.
    pub async fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let (mut taken, mut given, mut quotas) = (Vec::new(), Vec::new(), Vec::new());
        for change in changes {
            match change {
                Change::Remove(binding) | Change::Prune(binding) => taken.push(filter(binding)),
                Change::Add(binding) => given.push(creation(binding)),
                Change::Quota { user, quota } => quotas.push(quota_entry(user, *quota)),
            }
        }
        for some in taken.chunks(CHANGES_MAX) {
            let doing = "take ACLs away";
            let answer = self.ask(DeleteAclsRequest::default().with_filters(some.to_vec()), 2, doing).await?;
            for result in answer.filter_results {
                accepted(doing, result.error_code, result.error_message)?;
                for one in result.matching_acls {
                    accepted(doing, one.error_code, one.error_message)?;
                }
            }
        }
        for some in given.chunks(CHANGES_MAX) {
            let doing = "create ACLs";
            let answer = self.ask(CreateAclsRequest::default().with_creations(some.to_vec()), 2, doing).await?;
            answer.results.into_iter().try_for_each(|result| accepted(doing, result.error_code, result.error_message))?;
        }
        for some in quotas.chunks(CHANGES_MAX) {
            let doing = "set quotas";
            let answer = self.ask(AlterClientQuotasRequest::default().with_entries(some.to_vec()), 1, doing).await?;
            answer.entries.into_iter().try_for_each(|result| accepted(doing, result.error_code, result.error_message))?;
        }
        Ok(())
    }

    async fn ask<R: Request>(&mut self, request: R, version: i16, doing: &str) -> Result<R::Response, Error> {
        let exchange = tokio::time::timeout(TIMEOUT, self.exchange(&request, version));
        let answered = exchange.await.map_err(|late| Error::other(doing, Remedy::Retry, late))?;
        answered.map_err(|source| Error::other(doing, Remedy::Retry, source))
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, Box<dyn std::error::Error + Send + Sync>> {
        self.asked += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.asked)
            .with_client_id(Some(text("ryggrad")));
        let mut body = BytesMut::new();
        header.encode(&mut body, R::header_version(version))?;
        request.encode(&mut body, version)?;
        self.stream.write_all(&u32::try_from(body.len())?.to_be_bytes()).await?;
        self.stream.write_all(&body).await?;
        self.stream.flush().await?;
        let length = usize::try_from(self.stream.read_u32().await?)?;
        if length > ANSWER_BYTES_MAX {
            return Err(format!("an answer of {length} bytes is larger than {ANSWER_BYTES_MAX}").into());
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await?;
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))?;
        if header.correlation_id != self.asked {
            return Err("the answer is another's".into());
        }
        let response = R::Response::decode(&mut answer, version)?;
        if answer.has_remaining() { Err("the answer is longer than it says".into()) } else { Ok(response) }
    }
}

async fn open(broker: &str, tls: Option<Arc<rustls::ClientConfig>>) -> std::io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(broker).await?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await?))
}

fn accepted(doing: &str, code: i16, message: Option<StrBytes>) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    let said = message.map(|message| message.to_string()).unwrap_or_default();
    // 31 is CLUSTER_AUTHORIZATION_FAILED, 54 SECURITY_DISABLED.
    let why = match code {
        31 => "this client may not change who may do what: use the certificate of a super user".to_owned(),
        54 => return Err(Error::other(doing, Remedy::Die, NoAuthorizer)),
        _ => format!("Kafka's error {code} {said}"),
    };
    Err(Error::other(doing, Remedy::Die, why))
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn named<T: Copy>(table: &[(i8, T)], number: i8) -> Option<T> {
    table.iter().find(|(one, _)| *one == number).map(|(_, name)| *name)
}

fn resource(binding: &Binding) -> i8 {
    match binding.resource {
        Resource::Other(number) => number,
        named => RESOURCES.iter().find(|(_, one)| *one == named).map_or(0, |(number, _)| *number),
    }
}

fn operation(binding: &Binding) -> i8 {
    match binding.operation {
        Operation::Other(number) => number,
        named => OPERATIONS.iter().find(|(_, one)| *one == named).map_or(0, |(number, _)| *number),
    }
}

const fn pattern(binding: &Binding) -> i8 {
    if binding.is_prefix { PREFIXED } else { LITERAL }
}

const fn permission(binding: &Binding) -> i8 {
    if binding.is_allowed { ALLOW } else { DENY }
}

fn creation(binding: &Binding) -> AclCreation {
    AclCreation::default()
        .with_resource_type(resource(binding))
        .with_resource_name(text(&binding.name))
        .with_resource_pattern_type(pattern(binding))
        .with_principal(text(&binding.principal))
        .with_host(text(&binding.host))
        .with_operation(operation(binding))
        .with_permission_type(permission(binding))
}

/// What matches this one and nothing else.
fn filter(binding: &Binding) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(resource(binding))
        .with_resource_name_filter(Some(text(&binding.name)))
        .with_pattern_type_filter(pattern(binding))
        .with_principal_filter(Some(text(&binding.principal)))
        .with_host_filter(Some(text(&binding.host)))
        .with_operation(operation(binding))
        .with_permission_type(permission(binding))
}

fn quota_entry(user: &str, quota: Option<Quota>) -> EntryData {
    let entity = EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text(user)));
    let set = |key: &str, value: Option<u64>| {
        OpData::default().with_key(text(key)).with_value(value.unwrap_or_default() as f64).with_remove(value.is_none())
    };
    let ops = vec![
        set(BYTE_RATE, quota.map(|quota| quota.consumer_byte_rate)),
        set(REQUEST_PERCENTAGE, quota.map(|quota| quota.request_percentage)),
    ];
    EntryData::default().with_entity(vec![entity]).with_ops(ops)
}
