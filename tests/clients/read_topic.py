"""A consumer as anybody would write one: Confluent's client, its Avro deserializer, its registry
client. Reads a topic to its present end and prints one JSON object a record, or tries what a
serializer does. Knows nothing of Ryggrad but its addresses.

    read_topic.py read BROKER REGISTRY TOPIC [latest]
    read_topic.py register REGISTRY TOPIC    the schema on stdin; prints the id or the refusal
"""

import json
import sys

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext


def read(broker, registry, topic, latest):
    client = SchemaRegistryClient({"url": registry})
    settings = {"use.latest.version": True} if latest else None
    deserialize = AvroDeserializer(client, conf=settings)
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "a-stock-client",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    open_partitions = set(partitions)
    while open_partitions:
        message = consumer.poll(30)
        if message is None:
            sys.exit(f"nothing within 30 s; still open: {open_partitions}")
        if message.error():
            if message.error().code() != KafkaError._PARTITION_EOF:
                sys.exit(str(message.error()))
            open_partitions.discard(message.partition())
            continue
        context = SerializationContext(topic, MessageField.VALUE, message.headers())
        record = {
            "key": message.key().decode(),
            "partition": message.partition(),
            "offset": message.offset(),
            "headers": [[name, value.decode()] for name, value in (message.headers() or [])],
            "value": deserialize(message.value(), context),
        }
        print(json.dumps(record, ensure_ascii=False))
    consumer.close()


def register(registry, topic):
    """What a serializer does before its first record: its first call registers the schema."""
    client = SchemaRegistryClient({"url": registry})
    serialize = AvroSerializer(client, sys.stdin.read(), conf={"auto.register.schemas": True})
    value = {"organisasjonsnummer": "312345676", "endringstype": "NY", "virksomhetstype": "enhet"}
    try:
        framed = serialize(value, SerializationContext(topic, MessageField.VALUE, []))
    except SchemaRegistryError as error:
        print(json.dumps({"refused": error.http_status_code, "code": error.error_code}))
        return
    print(json.dumps({"id": int.from_bytes(framed[1:5], "big"), "magic": framed[0]}))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "read":
        read(*arguments[:3], latest=arguments[3:] == ["latest"])
    else:
        register(*arguments)
