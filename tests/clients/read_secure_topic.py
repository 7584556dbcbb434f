"""A stock client that shows Kafka a certificate, or none: Confluent's, and nothing of Ryggrad.

    read_secure_topic.py read|group|write BROKER TOPIC GROUP CA [CERTIFICATE KEY]

Prints one JSON object: how many records there were, or the name of the error. `read` takes partition 0 to its end,
`group` joins a group and commits, `write` appends one record.
"""

import json
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

TIMEOUT_S = 15


def settings(broker, ca, identity):
    chosen = {"bootstrap.servers": broker, "security.protocol": "ssl", "ssl.ca.location": ca, "socket.timeout.ms": 5000}
    if identity:
        chosen |= {"ssl.certificate.location": identity[0], "ssl.key.location": identity[1]}
    return chosen


def take(consumer, enough):
    records = 0
    while True:
        message = consumer.poll(TIMEOUT_S)
        if message is None:
            return {"error": "_TIMED_OUT"}
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                return {"records": records}
            return {"error": message.error().name()}
        records += 1
        if enough(records):
            return {"records": records}


def read(broker, topic, group, ca, identity):
    chosen = settings(broker, ca, identity)
    consumer = Consumer(chosen | {"group.id": group, "enable.partition.eof": True, "auto.offset.reset": "error", "enable.auto.commit": False})
    found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if found.error:
        return {"error": found.error.name()}
    consumer.assign([TopicPartition(topic, 0, 0)])
    return take(consumer, lambda records: False)


def in_group(broker, topic, group, ca, identity):
    chosen = settings(broker, ca, identity)
    consumer = Consumer(chosen | {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    taken = take(consumer, lambda records: records > 0)
    if "records" in taken:
        consumer.commit(asynchronous=False)
    consumer.close()
    return taken


def write(broker, topic, group, ca, identity):
    said = []
    producer = Producer(settings(broker, ca, identity) | {"message.timeout.ms": TIMEOUT_S * 1000})
    producer.produce(topic, b"{}", b"k", on_delivery=lambda error, message: said.append(error))
    producer.flush(TIMEOUT_S)
    return {"error": said[0].name()} if said and said[0] else {"records": len(said)}


if __name__ == "__main__":
    command, broker, topic, group, ca, *identity = sys.argv[1:]
    try:
        outcome = {"read": read, "group": in_group, "write": write}[command](broker, topic, group, ca, identity)
    except KafkaException as error:
        outcome = {"error": error.args[0].name()}
    print(json.dumps(outcome))
