// A receiver for Landfall's HTTP sink in Java 17, with the JDK only. The store is a journal file.
//
//     LANDFALL_SINK_SECRET=whsec_… java Receiver.java --port 8080 --journal landfall.journal
//
// Put a proxy that ends TLS before it. To make it yours, replace `refusal` and `Store`: this one keeps the key and content hash of every
// record in memory, which a database does better; and use your JSON library in the place of `Json`.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.net.InetSocketAddress;
import java.nio.channels.Channels;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public final class Receiver {
    /** The contract's largest body is some 3.2 MB. */
    private static final int BODY_BYTES = 4 * 1024 * 1024;

    private static final long TOLERANCE_SECONDS = 300;

    /** Landfall settles every transfer within 11 days; what comes again does so before that. */
    private static final long REMEMBERED_SECONDS = Duration.ofDays(14).toSeconds();

    /** A request that is not taken at all. */
    private static final class Refused extends Exception {
        private static final long serialVersionUID = 1;
        final int status;

        Refused(int status, String message) {
            super(message);
            this.status = status;
        }
    }

    private final List<byte[]> secrets;
    private final Store store;

    private Receiver(List<byte[]> secrets, Store store) {
        this.secrets = secrets;
        this.store = store;
    }

    public static void main(String[] arguments) throws IOException {
        Map<String, String> options = new HashMap<>(Map.of("--host", "127.0.0.1", "--port", "8080", "--journal", "landfall.journal"));
        for (int index = 0; index + 1 < arguments.length; index += 2) {
            options.put(arguments[index], arguments[index + 1]);
        }
        List<byte[]> secrets = readSecrets(System.getenv().getOrDefault("LANDFALL_SINK_SECRET", ""));
        if (secrets.isEmpty()) {
            System.err.println("LANDFALL_SINK_SECRET must hold the secret that Landfall signs with: whsec_ and base64. "
                    + "Set it to the value of the parameter SinkSecret.");
            System.exit(2);
        }
        // A client that stops in the middle of a request must not hold a thread for ever; and small answers must not wait for more.
        System.setProperty("sun.net.httpserver.maxReqTime", "60");
        System.setProperty("sun.net.httpserver.nodelay", "true");
        Receiver receiver = new Receiver(secrets, new Store(options.get("--journal")));
        InetSocketAddress address = new InetSocketAddress(options.get("--host"), Integer.parseInt(options.get("--port")));
        HttpServer server = HttpServer.create(address, 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", receiver::handle);
        server.start();
        System.out.println("Listening on http://" + options.get("--host") + ":" + server.getAddress().getPort() + "/");
    }

    /** One secret; or two with a space between them, while the old one is being replaced. */
    private static List<byte[]> readSecrets(String text) {
        return Arrays.stream(text.split(" "))
                .filter(secret -> secret.startsWith("whsec_"))
                .map(secret -> Base64.getDecoder().decode(secret.substring("whsec_".length())))
                .filter(secret -> secret.length >= 24)
                .toList();
    }

    private void handle(HttpExchange exchange) throws IOException {
        try (exchange) {
            try {
                byte[] body = readBody(exchange);
                String identity = checkSignature(exchange, body);
                boolean isPiece = header(exchange, "content-type").equals("application/octet-stream");
                answer(exchange, 200, isPiece ? receivePiece(exchange, identity, body) : receive(identity, body));
            } catch (Refused refused) {
                answer(exchange, refused.status, "{\"error\":" + Json.quoted(refused.getMessage()) + "}");
            } catch (Exception problem) {
                // Trying again can help: a full disk, a broken connection. Landfall does.
                problem.printStackTrace();
                answer(exchange, 503, "{\"error\":\"The delivery could not be stored.\"}");
            }
        }
    }

    private static byte[] readBody(HttpExchange exchange) throws IOException, Refused {
        if (!exchange.getRequestMethod().equals("POST")) {
            throw new Refused(405, "Deliveries are POST requests.");
        }
        byte[] body = exchange.getRequestBody().readNBytes(BODY_BYTES + 1);
        if (body.length > BODY_BYTES) {
            throw new Refused(413, "The body is larger than " + BODY_BYTES + " bytes.");
        }
        return body;
    }

    /** The webhook-id of a well signed request. */
    private String checkSignature(HttpExchange exchange, byte[] body) throws Refused, GeneralSecurityException {
        String identity = header(exchange, "webhook-id");
        String timestamp = header(exchange, "webhook-timestamp");
        List<String> given = Arrays.stream(header(exchange, "webhook-signature").split(" ")).filter(part -> part.startsWith("v1,")).toList();
        if (identity.isEmpty() || given.isEmpty() || !timestamp.matches("[0-9]{1,12}")) {
            throw new Refused(401, "A webhook header is missing or malformed.");
        }
        boolean right = false;
        for (byte[] secret : secrets) {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(secret, "HmacSHA256"));
            mac.update((identity + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
            byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
            for (String signature : given) {
                // MessageDigest.isEqual takes the same time wherever the difference is: it must not tell how much of a guess is right.
                right |= MessageDigest.isEqual(expected, signature.getBytes(StandardCharsets.UTF_8));
            }
        }
        if (!right) {
            throw new Refused(401, "The signature is wrong.");
        }
        if (Math.abs(Instant.now().getEpochSecond() - Long.parseLong(timestamp)) > TOLERANCE_SECONDS) {
            throw new Refused(401, "The timestamp is more than five minutes off.");
        }
        return identity;
    }

    private static String header(HttpExchange exchange, String name) {
        String value = exchange.getRequestHeaders().getFirst(name);
        return value == null ? "" : value;
    }

    private String receive(String identity, byte[] body) throws IOException, Refused {
        List<Entry> entries = new ArrayList<>();
        String place;
        try {
            Map<String, String> batch = Json.members(new String(body, StandardCharsets.UTF_8));
            if (!"1".equals(batch.get("version"))) {
                throw new Refused(400, "This receiver knows version 1 of the body only.");
            }
            // Each part in quotes, so that no two places look alike.
            place = String.join(",", quoted(batch, "tenant"), quoted(batch, "chain"), quoted(batch, "label"));
            for (String element : Json.elements(batch.get("records"))) {
                Map<String, String> entry = Json.members(element);
                entries.add(new Entry(Json.text(entry.get("key")), Json.text(entry.get("content_hash")), entry.get("record")));
            }
        } catch (IllegalArgumentException problem) {
            throw new Refused(400, problem.getMessage());
        }
        return store.take(identity, place, entries);
    }

    /** A piece of a raw file. The signature covers the header that describes it through the webhook-id, which is its digest. */
    private String receivePiece(HttpExchange exchange, String identity, byte[] body) throws IOException, Refused, GeneralSecurityException {
        String described = header(exchange, "landfall-piece");
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(described.getBytes(StandardCharsets.UTF_8));
        if (!HexFormat.of().formatHex(digest).equals(identity)) {
            throw new Refused(401, "The header landfall-piece is not the one that was signed.");
        }
        Map<String, String> piece = Json.members(described);
        String file = Json.text(piece.get("file"));
        if (!"1".equals(piece.get("version")) || !file.matches("[0-9a-f]{64}")) {
            throw new Refused(400, "This receiver knows version 1 of a piece only.");
        }
        String place = String.join(",", quoted(piece, "tenant"), quoted(piece, "chain"), quoted(piece, "label"));
        String hash = "true".equals(piece.get("last")) ? Json.text(piece.get("file_hash")) : null;
        return store.takePiece(identity, new Piece(place, file, Long.parseLong(piece.get("offset")), body, hash));
    }

    private static String quoted(Map<String, String> batch, String name) {
        return Json.quoted(Json.text(batch.get(name)));
    }

    private static void answer(HttpExchange exchange, int status, String body) throws IOException {
        byte[] encoded = body.getBytes(StandardCharsets.UTF_8);
        // What is left of a request that was refused early; otherwise the client could not read the answer.
        exchange.getRequestBody().transferTo(OutputStream.nullOutputStream());
        exchange.getResponseHeaders().set("content-type", "application/json");
        exchange.sendResponseHeaders(status, encoded.length);
        exchange.getResponseBody().write(encoded);
    }

    /** A record of a batch, `record` as it stands in the body. */
    private record Entry(String key, String contentHash, String record) {}

    /** A piece of a raw file; `hash` is that of the whole file, with its last piece. */
    private record Piece(String place, String file, long offset, byte[] content, String hash) {}

    /** Why a record is rejected; your own rules belong here. The reason is shown to people: no personal data in it. */
    private static String refusal(String record) {
        return record.startsWith("{") ? null : "a record must be an object";
    }

    /**
     * What was received. Each batch is one entry of the journal, forced to the disk before it is answered: its records and its answer are
     * there together or not at all. Run one process for each journal. A raw file is a file of its own below `<journal>.files`; the journal
     * says, by tenant, chain and label, which ones count.
     */
    private static final class Store {
        private record Answer(long takenAt, String text) {}

        private record Applied(String place, String contentHash, String record) {}

        private final RandomAccessFile journal;
        private final Path files;
        /** In the order in which they came, so that the oldest are the first. */
        private final Map<String, Answer> answers = new LinkedHashMap<>();
        private final Map<String, String> hashes = new HashMap<>();

        Store(String path) throws IOException {
            journal = new RandomAccessFile(path, "rw");
            files = Files.createDirectories(Path.of(path + ".files"));
            long whole = 0;
            DataInputStream input = new DataInputStream(new BufferedInputStream(Channels.newInputStream(journal.getChannel())));
            try {
                while (true) {
                    byte[] entry = read(input);
                    recall(entry);
                    whole += Integer.BYTES + entry.length;
                }
            } catch (EOFException end) {
                // An entry that a crash tore was never answered; its batch comes again.
                journal.setLength(whole);
                journal.seek(whole);
            }
        }

        /** One batch at a time: the second of two simultaneous deliveries finds the answer of the first. */
        synchronized String take(String identity, String place, List<Entry> entries) throws IOException {
            forget();
            Answer known = answers.get(identity);
            if (known != null) {
                return known.text();
            }
            List<String> results = new ArrayList<>();
            List<Applied> applied = new ArrayList<>();
            for (Entry entry : entries) {
                String full = place + "," + Json.quoted(entry.key());
                String reason = refusal(entry.record());
                String outcome = reason != null ? "rejected" : entry.contentHash().equals(hashes.get(full)) ? "unchanged" : "applied";
                String because = reason == null ? "" : ",\"reason\":" + Json.quoted(reason);
                results.add("{\"key\":" + Json.quoted(entry.key()) + ",\"outcome\":\"" + outcome + "\"" + because + "}");
                if (outcome.equals("applied")) {
                    applied.add(new Applied(full, entry.contentHash(), entry.record()));
                }
            }
            return answer(identity, results, applied);
        }

        synchronized String takePiece(String identity, Piece piece) throws IOException {
            forget();
            Answer known = answers.get(identity);
            if (known != null) {
                return known.text();
            }
            long length = keep(piece);
            String outcome = "\"applied\"";
            List<Applied> applied = new ArrayList<>();
            if (piece.hash() != null && length != piece.offset() + piece.content().length) {
                outcome = "\"rejected\",\"reason\":\"pieces of the file are missing\"";
            } else if (piece.hash() != null && piece.hash().equals(hashes.get(piece.place()))) {
                outcome = "\"unchanged\"";
                Files.delete(files.resolve(piece.file()));
            } else if (piece.hash() != null) {
                applied.add(new Applied(piece.place(), piece.hash(), piece.file()));
            }
            return answer(identity, List.of("{\"key\":" + Json.quoted(piece.file()) + ",\"outcome\":" + outcome + "}"), applied);
        }

        /** Writes a piece at its place, to the disk, and returns the file's length. */
        private long keep(Piece piece) throws IOException {
            try (RandomAccessFile file = new RandomAccessFile(files.resolve(piece.file()).toFile(), "rw")) {
                file.seek(piece.offset());
                file.write(piece.content());
                file.getFD().sync();
                return file.length();
            }
        }

        private String answer(String identity, List<String> results, List<Applied> applied) throws IOException {
            Answer answer = new Answer(Instant.now().getEpochSecond(), "{\"results\":[" + String.join(",", results) + "]}");
            write(identity, answer, applied);
            remember(identity, answer, applied);
            return answer.text();
        }

        private void remember(String identity, Answer answer, List<Applied> applied) {
            answers.put(identity, answer);
            applied.forEach(one -> hashes.put(one.place(), one.contentHash()));
        }

        private void forget() {
            long oldest = Instant.now().getEpochSecond() - REMEMBERED_SECONDS;
            Iterator<Answer> each = answers.values().iterator();
            while (each.hasNext() && each.next().takenAt() < oldest) {
                each.remove();
            }
        }

        private void write(String identity, Answer answer, List<Applied> applied) throws IOException {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            DataOutputStream output = new DataOutputStream(bytes);
            put(output, identity);
            output.writeLong(answer.takenAt());
            put(output, answer.text());
            output.writeInt(applied.size());
            for (Applied one : applied) {
                put(output, one.place());
                put(output, one.contentHash());
                put(output, one.record());
            }
            ByteArrayOutputStream entry = new ByteArrayOutputStream();
            new DataOutputStream(entry).writeInt(bytes.size());
            bytes.writeTo(entry);
            long start = journal.getFilePointer();
            try {
                journal.write(entry.toByteArray());
                journal.getFD().sync();
            } catch (IOException problem) {
                journal.setLength(start);
                journal.seek(start);
                throw problem;
            }
        }

        private void recall(byte[] entry) throws IOException {
            DataInputStream input = new DataInputStream(new ByteArrayInputStream(entry));
            String identity = get(input);
            Answer answer = new Answer(input.readLong(), get(input));
            List<Applied> applied = new ArrayList<>();
            for (int left = input.readInt(); left > 0; left--) {
                applied.add(new Applied(get(input), get(input), get(input)));
            }
            remember(identity, answer, applied);
        }

        private static void put(DataOutputStream output, String text) throws IOException {
            byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
            output.writeInt(bytes.length);
            output.write(bytes);
        }

        private static String get(DataInputStream input) throws IOException {
            return new String(read(input), StandardCharsets.UTF_8);
        }

        private static byte[] read(DataInputStream input) throws IOException {
            int length = input.readInt();
            byte[] bytes = input.readNBytes(Math.max(0, length));
            if (bytes.length < length) {
                throw new EOFException();
            }
            return bytes;
        }
    }

    /**
     * As much of JSON as a receiver needs: the members of an object and the elements of an array, each as the text that stands for it, and
     * strings. A record keeps its text, so its numbers keep their digits. It doesn't prove that a text is JSON: the signature says that it
     * comes from Landfall, which writes JSON. What it can't read is an IllegalArgumentException.
     */
    private static final class Json {
        private final String text;
        private int at;

        private Json(String text) {
            if (text == null) {
                throw new IllegalArgumentException("A field of the body is missing.");
            }
            this.text = text;
        }

        static Map<String, String> members(String text) {
            Json json = new Json(text);
            Map<String, String> members = new LinkedHashMap<>();
            json.expect('{');
            while (!json.next('}')) {
                String name = text(json.value());
                json.expect(':');
                members.put(name, json.value());
                json.comma('}');
            }
            return members;
        }

        static List<String> elements(String text) {
            Json json = new Json(text);
            List<String> elements = new ArrayList<>();
            json.expect('[');
            while (!json.next(']')) {
                elements.add(json.value());
                json.comma(']');
            }
            return elements;
        }

        /** What a string says. */
        static String text(String quoted) {
            Json json = new Json(quoted);
            json.expect('"');
            StringBuilder said = new StringBuilder();
            while (json.peek() != '"') {
                char character = json.take();
                said.append(character == '\\' ? json.escaped() : character);
            }
            return said.toString();
        }

        static String quoted(String text) {
            StringBuilder quoted = new StringBuilder("\"");
            for (char character : text.toCharArray()) {
                if (character == '"' || character == '\\') {
                    quoted.append('\\').append(character);
                } else if (character < ' ') {
                    quoted.append(String.format("\\u%04x", (int) character));
                } else {
                    quoted.append(character);
                }
            }
            return quoted.append('"').toString();
        }

        private char escaped() {
            char character = take();
            return switch (character) {
                case 'b' -> '\b';
                case 'f' -> '\f';
                case 'n' -> '\n';
                case 'r' -> '\r';
                case 't' -> '\t';
                case 'u' -> (char) Integer.parseInt("" + take() + take() + take() + take(), 16);
                default -> character;
            };
        }

        /** Steps over a value, however deep, and returns its text. */
        private String value() {
            space();
            int start = at;
            int depth = 0;
            do {
                char character = take();
                if (character == '"') {
                    while (peek() != '"') {
                        at += peek() == '\\' ? 2 : 1;
                    }
                    at++;
                } else if (character == '{' || character == '[') {
                    depth++;
                } else if (character == '}' || character == ']') {
                    depth--;
                } else {
                    while (at < text.length() && ",:{}[]\" \t\r\n".indexOf(text.charAt(at)) < 0) {
                        at++;
                    }
                }
            } while (depth > 0);
            return text.substring(start, at);
        }

        private boolean next(char expected) {
            space();
            return peek() == expected;
        }

        private void comma(char end) {
            if (!next(end)) {
                expect(',');
            }
        }

        private void expect(char expected) {
            space();
            if (take() != expected) {
                throw new IllegalArgumentException("The body is not the JSON of the contract.");
            }
        }

        private void space() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
        }

        private char peek() {
            if (at >= text.length()) {
                throw new IllegalArgumentException("The body ends in the middle of its JSON.");
            }
            return text.charAt(at);
        }

        private char take() {
            char character = peek();
            at++;
            return character;
        }
    }
}
