"""Keeps a copy of one municipality's units in SQLite, with nothing but Confluent's stock client.

    pip install "confluent-kafka[avro,schemaregistry]"
    python local_copy.py BROKER REGISTRY KOMMUNE FILE

The copy and its positions are one transaction, so a crash at any moment leaves a copy that is right
and knows how far it is. While a copy is made anew, readers of the file see the old one.
"""

import json
import sqlite3
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

TOPIC, REMOVED = "grunndata.virksomhet.v1", "ryggrad.removed"
# Kafka keeps tombstones for 61 days. A copy that was behind for longer may have missed one.
TOMBSTONES_KEPT_S = 60 * 24 * 3600

broker, registry, kommune, file = sys.argv[1:]
decode = AvroDeserializer(SchemaRegistryClient({"url": registry}))
context = SerializationContext(TOPIC, MessageField.VALUE)
copy = sqlite3.connect(file, isolation_level=None)
copy.executescript("""
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS unit (orgnr TEXT PRIMARY KEY, state TEXT);
    CREATE TABLE IF NOT EXISTS position (partition INTEGER PRIMARY KEY, next INTEGER, read_to REAL);
""")


def consumer():
    return Consumer({
        "bootstrap.servers": broker,
        "group.id": "units-of-" + kommune,  # Only a name: nothing is committed to it.
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    })


def messages(consumer, timeout=0.2):
    """What comes next: records, and the ends of partitions as (partition, None)."""
    for message in consumer.consume(500, timeout=timeout):
        if not message.error():
            yield message.partition(), message
        elif message.error().code() == KafkaError._PARTITION_EOF:
            yield message.partition(), None
        else:
            sys.exit(str(message.error()))


def learn_removed(timeout):
    """Keys removed for legal reasons, and where: nothing older of them may get into the copy. Says whether it knows all."""
    is_end = False
    for _, message in messages(removals, timeout):
        if message is None:
            is_end = True
            continue
        topic, _, key = message.key().decode().partition("/")
        if topic == TOPIC and message.value():
            place = json.loads(message.value())
            removed[key] = place["partition"], place["offset"]
        elif topic == TOPIC:
            removed.pop(key, None)
    return is_end


def apply(message):
    key, headers = message.key().decode(), dict(message.headers() or [])
    is_gone = message.value() is None or headers["ce_endringstype"] in (b"SLETTET", b"FJERNET")
    # A key is always in the same partition, so offsets can be compared.
    is_older = message.offset() < removed.get(key, (0, 0))[1]
    if is_gone or is_older or headers.get("ce_kommunenummer") != kommune.encode():
        copy.execute("DELETE FROM unit WHERE orgnr = ?", [key])  # Also if it has moved away.
    else:
        state = json.dumps(decode(message.value(), context), ensure_ascii=False)
        copy.execute("REPLACE INTO unit VALUES (?, ?)", [key, state])


reader = consumer()
partitions = reader.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions
marks = {partition: reader.get_watermark_offsets(TopicPartition(TOPIC, partition)) for partition in partitions}
removals, removed = consumer(), {}
removals.assign([TopicPartition(REMOVED, 0, OFFSET_BEGINNING)])
while not learn_removed(0.2):  # After the marks: what is removed later stands behind them.
    pass
known = {partition: (next_, read_to) for partition, next_, read_to in copy.execute("SELECT * FROM position")}


def goes_on(partition):
    (low, high), (next_, read_to) = marks[partition], known.get(partition, (-1, 0))
    return low <= next_ <= high and (next_ == high or time.time() - read_to < TOMBSTONES_KEPT_S)


copy.execute("BEGIN")
is_new = not all(goes_on(partition) for partition in partitions)
if is_new:  # Or away for so long that deletions are told no more: all is read again.
    copy.execute("DELETE FROM unit")
    known = {partition: (low, 0) for partition, (low, _) in marks.items()}
else:  # What was removed meanwhile goes at once, before its event is read.
    gone = [[key] for key, (partition, offset) in removed.items() if offset >= known[partition][0]]
    copy.executemany("DELETE FROM unit WHERE orgnr = ?", gone)
    copy.execute("COMMIT")
    copy.execute("BEGIN")
reader.assign([TopicPartition(TOPIC, partition, next_) for partition, (next_, _) in known.items()])
behind = {partition for partition, (next_, _) in known.items() if next_ < marks[partition][1]}
has_told = False

while True:
    batch = list(messages(reader))
    learn_removed(0)  # Before anything of the batch is kept.
    for partition, message in batch:
        if message is None:
            # Also what follows the last record, markers of transactions, is passed.
            behind.discard(partition)
            known[partition] = known[partition][0], time.time()
            continue
        if message.key() != b"ryggrad.roll":  # A mark, once a day, is nobody's event.
            apply(message)
        known[partition] = message.offset() + 1, message.timestamp()[1] / 1000
    if behind and is_new:
        continue
    rows = [(partition, *position) for partition, position in known.items()]
    copy.executemany("REPLACE INTO position VALUES (?, ?, ?)", rows)
    copy.execute("COMMIT")
    copy.execute("BEGIN")
    if not behind and not has_told:
        has_told, is_new = True, False
        print("caught up", flush=True)
