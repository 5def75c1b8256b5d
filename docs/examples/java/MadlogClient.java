import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Future;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Takes part in a madlog log on Kafka with stock parts only: kafka-clients and avro.
 *
 * <pre>
 * mvn -q dependency:copy-dependencies -DoutputDirectory=jars
 * javac -cp 'jars/*' -d classes MadlogClient.java
 * java -cp 'classes:jars/*' MadlogClient say localhost:9092 order-4711 ada shop "where is it?"
 * java -cp 'classes:jars/*' MadlogClient decisions localhost:9092 order-4711 1
 * </pre>
 *
 * -Dprefix=NAME is the log's prefix, -Dregistry=URL writes the Confluent wire format; both formats
 * are read either way. docs/interop.md says why each thing is as it is.
 */
public final class MadlogClient {
    private static final String PREFIX = System.getProperty("prefix", "");
    private static final String REGISTRY = System.getProperty("registry");
    private static final Duration PATIENCE = Duration.ofSeconds(30);
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final SecureRandom RANDOM = new SecureRandom();
    private static final HttpClient HTTP = HttpClient.newHttpClient();

    /** The bytes before an Avro body (in hex), to the schema that they name. */
    private final Map<String, Schema> byHead = new HashMap<>();

    /** The kinds that can be written, to the bytes that name their newest schema. */
    private final Map<String, byte[]> headOf = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        MadlogClient client = new MadlogClient();
        String bootstrap = arguments[1];
        String conversation = arguments[2];
        try (KafkaConsumer<String, byte[]> consumer = newConsumer(bootstrap)) {
            client.readSchemas(consumer);
            if (arguments[0].equals("decisions")) {
                client.decisions(consumer, conversation, Integer.parseInt(arguments[3]));
                return;
            }
        }
        if (REGISTRY != null) {
            client.useRegistry("ConversationChanged");
            client.useRegistry("Turn");
        }
        client.say(bootstrap, conversation, arguments[3], arguments[4], arguments[5]);
    }

    /** Learns what mad.schemas holds: each record names its schema by fingerprint. */
    private void readSchemas(KafkaConsumer<String, byte[]> consumer) throws IOException {
        // The one schema that must be known beforehand; a released schema never changes.
        Path file = Path.of(System.getProperty("schema", "../SchemaRegistered.v1.avsc"));
        Schema ofSchemas = new Schema.Parser().parse(Files.readString(file));
        Map<String, Long> newest = new HashMap<>();
        TopicPartition place = new TopicPartition(PREFIX + "mad.schemas", 0);
        consumer.assign(List.of(place));
        consumer.seekToBeginning(List.of(place));
        long end = consumer.endOffsets(List.of(place)).get(place);
        while (consumer.position(place) < end) {
            for (ConsumerRecord<String, byte[]> record : consumer.poll(PATIENCE)) {
                GenericRecord event = body(ofSchemas, record.value(), 10);
                String kind = event.get("subject_name").toString();
                String head = "c301" + event.get("fingerprint");
                byHead.put(head, new Schema.Parser().parse(event.get("schema_text").toString()));
                long version = (Long) event.get("version");
                if (version >= newest.getOrDefault(kind, 0L)) {
                    newest.put(kind, version);
                    headOf.put(kind, HexFormat.of().parseHex(head));
                }
            }
        }
    }

    /** Writes a kind by the id that the registry gave its newest schema. */
    private void useRegistry(String kind) throws IOException, InterruptedException {
        JsonNode found = ask("/subjects/madlog." + kind + "/versions/latest");
        headOf.put(kind, ByteBuffer.allocate(5).put((byte) 0).putInt(found.get("id").asInt()).array());
    }

    private void say(String bootstrap, String conversation, String sender, String to, String text)
            throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        // The default partitioner of Java's client is murmur2 of the key, as it must be.
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        Map<String, Object> created = new LinkedHashMap<>(Map.of("change", "created"));
        Map<String, Object> person = joined(sender, "human");
        Map<String, Object> agent = joined(to, "mad");
        Map<String, Object> turn = new LinkedHashMap<>();
        turn.put("recipients", List.of(to));
        turn.put("parts", List.of(Map.of("content_class", "prose", "text", text)));
        List<Future<RecordMetadata>> acknowledged = new ArrayList<>();
        GenericRecord before = null;
        try (KafkaProducer<String, byte[]> producer =
                new KafkaProducer<>(settings, new StringSerializer(), new ByteArraySerializer())) {
            for (Map<String, Object> payload : List.of(created, person, agent, turn)) {
                String kind = payload == turn ? "Turn" : "ConversationChanged";
                Map<String, Object> fields = new LinkedHashMap<>(payload);
                long nowUs = Duration.between(Instant.EPOCH, Instant.now()).toNanos() / 1000;
                fields.put("event_id", newEventId(nowUs / 1000));
                fields.put("conversation_id", conversation);
                fields.put("sender", Map.of("name", sender, "kind", "human"));
                fields.put("occurred_at", nowUs);
                if (before != null) { // what this event follows on, and what its sender knew
                    Object first = before.get("correlation_id");
                    fields.put("causation_id", before.get("event_id"));
                    fields.put("seen", before.get("event_id"));
                    fields.put("correlation_id", first == null ? before.get("event_id") : first);
                }
                before = (GenericRecord) value(schema(headOf.get(kind)), fields);
                ProducerRecord<String, byte[]> record =
                        new ProducerRecord<>(
                                PREFIX + "mad.conversations",
                                conversation,
                                encode(headOf.get(kind), before));
                record.headers().add("kind", kind.getBytes(StandardCharsets.UTF_8));
                record.headers().add("sender", sender.getBytes(StandardCharsets.UTF_8));
                record.headers().add("conversation", conversation.getBytes(StandardCharsets.UTF_8));
                acknowledged.add(producer.send(record));
            }
            for (Future<RecordMetadata> one : acknowledged) {
                one.get();
            }
        }
        System.out.println(JSON.writeValueAsString(Map.of("turn_id", before.get("event_id"))));
    }

    private static Map<String, Object> joined(String name, String kind) {
        return Map.of("change", "joined", "participant", name, "participant_kind", kind);
    }

    /** Prints how the conversation's turns were routed, each decision once. */
    private void decisions(KafkaConsumer<String, byte[]> consumer, String conversation, int count)
            throws Exception {
        List<TopicPartition> places = new ArrayList<>();
        String topic = PREFIX + "mad.decisions";
        consumer.partitionsFor(topic).forEach(
                one -> places.add(new TopicPartition(topic, one.partition())));
        consumer.assign(places);
        consumer.seekToBeginning(places);
        Map<String, long[]> marks = new HashMap<>();
        int printed = 0;
        Instant deadline = Instant.now().plus(PATIENCE);
        while (printed < count && Instant.now().isBefore(deadline)) {
            for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                if (repeated(record, marks) || !record.key().equals(conversation)) {
                    continue;
                }
                GenericRecord decision = decode(record.value());
                Map<String, Object> shown = new LinkedHashMap<>();
                for (String name : List.of("turn_id", "recipient", "tier", "route", "reason")) {
                    shown.put(name, decision.get(name).toString());
                }
                System.out.println(JSON.writeValueAsString(shown));
                printed++;
            }
        }
        if (printed < count) {
            throw new IllegalStateException(printed + " decisions of " + count);
        }
    }

    /** Tells a record that an engine appended twice: its header source does not rise. */
    private static boolean repeated(ConsumerRecord<String, byte[]> record, Map<String, long[]> marks) {
        Header header = record.headers().lastHeader("source");
        if (header == null) {
            return false;
        }
        // PROCESSOR/TOPIC/PARTITION@OFFSET/INDEX, rising in each partition.
        String source = new String(header.value(), StandardCharsets.UTF_8);
        int at = source.lastIndexOf('@');
        String[] place = source.substring(at + 1).split("/");
        long[] mark = {Long.parseLong(place[0]), Long.parseLong(place[1])};
        String of = record.partition() + " " + source.substring(0, at);
        long[] last = marks.getOrDefault(of, new long[] {-1, -1});
        if (mark[0] < last[0] || mark[0] == last[0] && mark[1] <= last[1]) {
            return true;
        }
        marks.put(of, mark);
        return false;
    }

    private static KafkaConsumer<String, byte[]> newConsumer(String bootstrap) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
    }

    /** Returns a UUID of version 7: the time in milliseconds, then random bits. */
    private static String newEventId(long ms) {
        long high = ms << 16 | 0x7000L | RANDOM.nextLong() & 0x0FFFL;
        long low = RANDOM.nextLong() & 0x3FFF_FFFF_FFFF_FFFFL | 0x8000_0000_0000_0000L;
        return new UUID(high, low).toString();
    }

    private static byte[] encode(byte[] head, GenericRecord event) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write(head);
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(out, null);
        new GenericDatumWriter<GenericRecord>(event.getSchema()).write(event, encoder);
        encoder.flush();
        return out.toByteArray();
    }

    /** Returns an event, in whichever of the two formats it is. */
    private GenericRecord decode(byte[] value) throws Exception {
        int size = value[0] == 0 ? 5 : 10;
        byte[] head = new byte[size];
        System.arraycopy(value, 0, head, 0, size);
        return body(schema(head), value, size);
    }

    private static GenericRecord body(Schema schema, byte[] value, int at) throws IOException {
        BinaryDecoder decoder =
                DecoderFactory.get().binaryDecoder(value, at, value.length - at, null);
        return new GenericDatumReader<GenericRecord>(schema).read(null, decoder);
    }

    private Schema schema(byte[] head) throws IOException, InterruptedException {
        String name = HexFormat.of().formatHex(head);
        Schema schema = byHead.get(name);
        if (schema == null) {
            if (REGISTRY == null || head[0] != 0) {
                throw new IllegalStateException("unknown schema " + name + ": name the registry");
            }
            JsonNode found = ask("/schemas/ids/" + Integer.toUnsignedString(
                    ByteBuffer.wrap(head, 1, 4).getInt()));
            schema = new Schema.Parser().parse(found.get("schema").asText());
            byHead.put(name, schema);
        }
        return schema;
    }

    private static JsonNode ask(String path) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(REGISTRY + path)).build();
        HttpResponse<String> answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IOException(path + ": " + answer.body());
        }
        return JSON.readTree(answer.body());
    }

    /** Returns a plain value as Avro's classes hold it; what is left out takes its default. */
    private static Object value(Schema schema, Object plain) {
        return switch (schema.getType()) {
            case RECORD -> {
                GenericRecordBuilder builder = new GenericRecordBuilder(schema);
                for (Map.Entry<?, ?> one : ((Map<?, ?>) plain).entrySet()) {
                    Schema.Field field = schema.getField((String) one.getKey());
                    builder.set(field, value(field.schema(), one.getValue()));
                }
                yield builder.build();
            }
            case ARRAY -> {
                List<Object> items = new ArrayList<>();
                for (Object one : (List<?>) plain) {
                    items.add(value(schema.getElementType(), one));
                }
                yield new GenericData.Array<>(schema, items);
            }
            case UNION -> value(schema.getTypes().get(1), plain); // of null and one type
            case ENUM -> new GenericData.EnumSymbol(schema, plain.toString());
            case STRING -> plain.toString();
            default -> plain;
        };
    }
}
