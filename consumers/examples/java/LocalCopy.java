import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Keeps a copy of one municipality's units in a file, with Kafka's and Avro's own libraries.
 *
 * <pre>
 * mvn dependency:copy-dependencies     # into target/dependency
 * java -cp 'target/dependency/*' LocalCopy.java BROKER REGISTRY KOMMUNE FILE
 * </pre>
 *
 * The file is replaced whole, together with the positions behind it, so that a crash at any moment
 * leaves a copy that is right and knows how far it is.
 *
 * Confluent's deserialiser does this too, but is not on Maven Central; Apicurio's is, but asks
 * Apicurio's own API for schemas. The frame is five bytes, so {@link #decode} reads it itself.
 */
public final class LocalCopy {
    static final String TOPIC = "grunndata.virksomhet.v1";
    static final TopicPartition REMOVED = new TopicPartition("ryggrad.removed", 0);
    /** Kafka keeps tombstones for 61 days. A copy that was behind for longer may have missed one. */
    static final long TOMBSTONES_KEPT_MS = Duration.ofDays(60).toMillis();

    record Position(long next, long readToMs) {}

    record Place(int partition, long offset) {}

    final String broker, registry, kommune;
    final Path file;
    final Map<TopicPartition, Position> positions = new HashMap<>();
    final Map<String, String> units = new TreeMap<>();
    final Map<String, Place> removed = new HashMap<>();
    final Map<Integer, Schema> schemas = new HashMap<>();

    public static void main(String[] args) throws Exception {
        new LocalCopy(args[0], args[1], args[2], Path.of(args[3])).run();
    }

    LocalCopy(String broker, String registry, String kommune, Path file) {
        this.broker = broker;
        this.registry = registry;
        this.kommune = kommune;
        this.file = file;
    }

    void run() throws Exception {
        load();
        var consumer = consumer();
        List<TopicPartition> all =
            consumer.partitionsFor(TOPIC).stream().map(found -> new TopicPartition(TOPIC, found.partition())).toList();
        var begins = consumer.beginningOffsets(all);
        var ends = consumer.endOffsets(all);
        readRemoved(consumer); // After the ends: what is removed later stands behind them.

        boolean goesOn = all.stream().allMatch(partition -> goesOn(positions.get(partition), begins.get(partition), ends.get(partition)));
        if (goesOn) {
            // What was removed meanwhile goes at once, before its event is read.
            removed.forEach((key, place) -> {
                if (place.offset() >= positions.get(new TopicPartition(TOPIC, place.partition())).next()) units.remove(key);
            });
            save();
        } else {
            // New, or away for so long that deletions are told no more: all is read again.
            units.clear();
            all.forEach(partition -> positions.put(partition, new Position(begins.get(partition), 0)));
        }
        // Removals are followed for good: an assignment leaves positions that there are as they are.
        consumer.assign(Stream.concat(all.stream(), Stream.of(REMOVED)).toList());
        all.forEach(partition -> consumer.seek(partition, positions.get(partition).next()));

        boolean isCaughtUp = false;
        while (true) {
            var records = consumer.poll(Duration.ofMillis(200));
            records.records(REMOVED).forEach(this::learn); // Before anything else of them is kept.
            for (var record : records.records(TOPIC)) {
                apply(record);
                positions.put(new TopicPartition(TOPIC, record.partition()), new Position(record.offset() + 1, record.timestamp()));
            }
            for (var partition : all) {
                // The position also passes markers of transactions, which are no records.
                boolean isAtEnd = consumer.currentLag(partition).orElse(1) == 0;
                long readToMs = isAtEnd ? System.currentTimeMillis() : positions.get(partition).readToMs();
                positions.put(partition, new Position(consumer.position(partition), readToMs));
            }
            boolean isFirst = !isCaughtUp && all.stream().allMatch(partition -> positions.get(partition).next() >= ends.get(partition));
            isCaughtUp |= isFirst;
            // A copy that is made anew is shown when it is whole.
            if (isFirst || (!records.isEmpty() && (isCaughtUp || goesOn))) save();
            if (isFirst) System.out.println("caught up");
        }
    }

    boolean goesOn(Position position, long begin, long end) {
        return position != null && begin <= position.next() && position.next() <= end
            && (position.next() == end || System.currentTimeMillis() - position.readToMs() < TOMBSTONES_KEPT_MS);
    }

    void apply(ConsumerRecord<String, byte[]> record) throws Exception {
        String key = record.key();
        if (key.equals("ryggrad.roll")) return; // A mark, once a day, is nobody's event.
        boolean isGone = record.value() == null || Set.of("SLETTET", "FJERNET").contains(header(record, "ce_endringstype"));
        // A key is always in the same partition, so offsets can be compared.
        boolean isOlder = removed.containsKey(key) && record.offset() < removed.get(key).offset();
        if (isGone || isOlder || !kommune.equals(header(record, "ce_kommunenummer"))) {
            units.remove(key); // Also if it has moved away.
        } else {
            units.put(key, decode(record.value()).toString());
        }
    }

    static String header(ConsumerRecord<?, ?> record, String name) {
        Header found = record.headers().lastHeader(name);
        return found == null ? "" : new String(found.value(), StandardCharsets.UTF_8);
    }

    /** A zero, the schema's number, the datum. */
    GenericRecord decode(byte[] framed) throws Exception {
        int id = ByteBuffer.wrap(framed).getInt(1);
        if (!schemas.containsKey(id)) {
            var request = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id)).build();
            var body = HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body();
            schemas.put(id, new Schema.Parser().parse(new ObjectMapper().readTree(body).get("schema").asText()));
        }
        var datum = DecoderFactory.get().binaryDecoder(framed, 5, framed.length - 5, null);
        return new GenericDatumReader<GenericRecord>(schemas.get(id)).read(null, datum);
    }

    /** Keys removed for legal reasons, and where: nothing older of them may get into the copy. */
    void readRemoved(KafkaConsumer<String, byte[]> consumer) {
        consumer.assign(List.of(REMOVED));
        consumer.seekToBeginning(List.of(REMOVED));
        long end = consumer.endOffsets(List.of(REMOVED)).get(REMOVED);
        while (consumer.position(REMOVED) < end) consumer.poll(Duration.ofMillis(200)).forEach(this::learn);
    }

    void learn(ConsumerRecord<String, byte[]> record) {
        if (!record.key().startsWith(TOPIC + "/")) return;
        String key = record.key().substring(TOPIC.length() + 1);
        if (record.value() == null) {
            removed.remove(key);
            return;
        }
        try {
            var place = new ObjectMapper().readTree(record.value());
            removed.put(key, new Place(place.get("partition").asInt(), place.get("offset").asLong()));
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }

    KafkaConsumer<String, byte[]> consumer() {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", broker,
            "isolation.level", "read_committed",
            "enable.auto.commit", false,
            "auto.offset.reset", "none");
        return new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
    }

    void load() throws IOException {
        if (!Files.exists(file)) return;
        for (String line : Files.readAllLines(file)) {
            String[] parts = line.split("\t", 4);
            if (parts[0].equals("unit")) units.put(parts[1], parts[2]);
            else positions.put(new TopicPartition(TOPIC, Integer.parseInt(parts[1])), new Position(Long.parseLong(parts[2]), Long.parseLong(parts[3])));
        }
    }

    void save() throws IOException {
        var text = new StringBuilder();
        positions.forEach((partition, at) ->
            text.append("position\t%d\t%d\t%d\n".formatted(partition.partition(), at.next(), at.readToMs())));
        units.forEach((key, state) -> text.append("unit\t").append(key).append('\t').append(state).append('\n'));
        Path fresh = file.resolveSibling(file.getFileName() + ".fresh");
        try (var channel = FileChannel.open(
                fresh, StandardOpenOption.CREATE, StandardOpenOption.WRITE, StandardOpenOption.TRUNCATE_EXISTING)) {
            channel.write(ByteBuffer.wrap(text.toString().getBytes(StandardCharsets.UTF_8)));
            channel.force(true);
        }
        Files.move(fresh, file, StandardCopyOption.ATOMIC_MOVE);
    }
}
