// A neutral package: move the class into one of your own.
package com.example.migration.export;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.CharsetEncoder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;

/**
 * Writes down what an export uploads, and uploads it as the export's last file, so that the cloud app knows when everything has arrived and
 * can verify it. README.md, one folder up, is the specification of the format.
 *
 * <pre>{@code
 * ExportManifest manifest = new ExportManifest("Vault for Confluence", "4.2.0");
 * try (ExportManifest.ExportedFile file = manifest.begin("issues.ndjson.gz", migration::createAppData);
 *         OutputStream lines = file.countingLines(new GZIPOutputStream(file))) {
 *     // write the records, one a line, to "lines"
 *     file.complete();
 * }
 * manifest.upload(migration::createAppData);
 * }</pre>
 *
 * <p>Several threads may export files at the same time; each {@link ExportedFile} belongs to one thread at a time, as any stream does. A file that was begun
 * and not completed makes {@link #upload} refuse: a manifest beside half a file would tell the cloud app that all is well. Let the
 * exception end the export, so that the admin can run it again.
 *
 * <p>Java 8 and newer, no dependencies.
 */
public final class ExportManifest {

    /** The label of the manifest itself, unless the cloud app's configuration says another one ({@code completeness.manifest_label}). */
    public static final String DEFAULT_LABEL = "export-manifest";

    /** Most files that a manifest may name. */
    public static final int FILES_MAX = 10_000;

    /** Largest manifest, in bytes. */
    public static final int BYTES_MAX = 4 * 1024 * 1024;

    /** Opens a stream to the migration platform; {@code createAppData(label)} of the migration library has this form. */
    @FunctionalInterface
    public interface Upload {
        /**
         * Begins a file.
         *
         * @param label the label under which it is uploaded
         * @return the stream; the file is visible to the cloud app once it is closed
         * @throws IOException when the file can't be begun
         */
        OutputStream open(String label) throws IOException;
    }

    /** Files by label, so that the manifest of the same export is always the same. Guarded by this manifest's lock. */
    private final Map<String, Entry> entries = new TreeMap<>();

    private final String label;
    private final String exporterName;
    private final String exporterVersion;
    private String schemaVersion;
    private boolean written;

    /**
     * A manifest under the {@link #DEFAULT_LABEL}.
     *
     * @param exporterName what writes the export, for the people who read the transfer's timeline
     * @param exporterVersion its version
     */
    public ExportManifest(String exporterName, String exporterVersion) {
        this(DEFAULT_LABEL, exporterName, exporterVersion);
    }

    /**
     * A manifest under another label.
     *
     * @param label the label that the cloud app expects it under
     * @param exporterName what writes the export
     * @param exporterVersion its version
     */
    public ExportManifest(String label, String exporterName, String exporterVersion) {
        this.label = requireText(label, "The manifest's label");
        this.exporterName = requireText(exporterName, "The exporter's name");
        this.exporterVersion = requireText(exporterVersion, "The exporter's version");
    }

    /**
     * States the version of the exported records' own form.
     *
     * @param version your own numbering
     * @return this manifest
     */
    public synchronized ExportManifest schemaVersion(String version) {
        requireNotWritten();
        schemaVersion = requireText(version, "The schema's version");
        return this;
    }

    /**
     * Begins one file of the export.
     *
     * @param fileLabel its label; every file has one of its own
     * @param upload where it is uploaded to; opened with the very label that the manifest names
     * @return the stream to write the file to; what is written to it is uploaded as it is, so compress before it
     * @throws IOException when the upload can't be opened; the export can't be complete any more then
     * @throws IllegalArgumentException when the label is empty, not text, the manifest's own or begun already
     * @throws IllegalStateException when the manifest was written already, or names {@link #FILES_MAX} files
     */
    public ExportedFile begin(String fileLabel, Upload upload) throws IOException {
        Objects.requireNonNull(upload, "The upload must not be null.");
        Entry entry = reserve(fileLabel);
        // Outside the lock: opening an upload may take its time, and other threads go on meanwhile. Should it fail, the entry stays as
        // it is, broken, so that a file that was meant to be exported is never silently left out.
        OutputStream target = Objects.requireNonNull(upload.open(fileLabel), "The upload gave no stream.");
        synchronized (this) {
            entry.state = State.OPEN;
        }
        return new ExportedFile(this, entry, target);
    }

    /**
     * Uploads the manifest, as the last file of the export. Call it when every file was closed, and not at all when the export failed.
     *
     * @param upload where it is uploaded to
     * @throws IOException when the upload fails; the export has failed then, and this manifest can't be uploaded again
     * @throws IllegalStateException when a file is open, was not completed or could not be written, when the manifest is too large, or when it
     *     was written already
     */
    public void upload(Upload upload) throws IOException {
        Objects.requireNonNull(upload, "The upload must not be null.");
        // Checked and made before anything is opened: an upload that was opened becomes a file of the transfer.
        byte[] json = finish();
        try (OutputStream target = upload.open(label)) {
            target.write(json);
        }
    }

    private synchronized Entry reserve(String fileLabel) {
        requireNotWritten();
        requireText(fileLabel, "The label");
        if (fileLabel.equals(label)) {
            throw new IllegalArgumentException("The label " + quoted(fileLabel) + " is the manifest's own; choose another one.");
        }
        if (entries.size() >= FILES_MAX) {
            throw new IllegalStateException("A manifest names at most " + FILES_MAX + " files; export fewer, larger ones.");
        }
        Entry entry = new Entry();
        if (entries.putIfAbsent(fileLabel, entry) != null) {
            throw new IllegalArgumentException(
                    "The label " + quoted(fileLabel) + " was begun already; give every file a label of its own.");
        }
        return entry;
    }

    private synchronized byte[] finish() {
        requireNotWritten();
        List<String> unfinished = new ArrayList<>();
        for (Map.Entry<String, Entry> file : entries.entrySet()) {
            State state = file.getValue().state;
            if (state != State.COMPLETE) {
                unfinished.add(quoted(file.getKey()) + " " + state.words);
            }
        }
        if (!unfinished.isEmpty()) {
            int shown = Math.min(unfinished.size(), 5);
            throw new IllegalStateException("The manifest is not written, because not every file was exported: "
                    + String.join(", ", unfinished.subList(0, shown))
                    + (unfinished.size() > shown ? " and " + (unfinished.size() - shown) + " more" : "")
                    + ". Let the export fail, so that it can be run again.");
        }
        byte[] json = json(Instant.now().truncatedTo(ChronoUnit.SECONDS)).getBytes(StandardCharsets.UTF_8);
        if (json.length > BYTES_MAX) {
            throw new IllegalStateException("The manifest has " + json.length + " bytes, above the limit of " + BYTES_MAX
                    + "; use shorter labels or fewer, larger files.");
        }
        written = true;
        return json;
    }

    private String json(Instant exportedAt) {
        StringBuilder json = new StringBuilder(256 + 200 * entries.size());
        json.append("{\n  \"version\": 1,\n  \"exporter\": {\"name\": ");
        appendText(json, exporterName);
        json.append(", \"version\": ");
        appendText(json, exporterVersion);
        json.append("},\n  \"exported_at\": ");
        appendText(json, exportedAt.toString());
        if (schemaVersion != null) {
            json.append(",\n  \"schema_version\": ");
            appendText(json, schemaVersion);
        }
        json.append(",\n  \"files\": [");
        String separator = "\n    ";
        for (Map.Entry<String, Entry> file : entries.entrySet()) {
            Entry entry = file.getValue();
            json.append(separator).append("{\"label\": ");
            appendText(json, file.getKey());
            if (entry.records != UNCOUNTED) {
                json.append(", \"records\": ").append(entry.records);
            }
            json.append(", \"bytes\": ").append(entry.bytes);
            json.append(", \"sha256\": \"").append(entry.sha256).append("\"}");
            separator = ",\n    ";
        }
        return json.append(entries.isEmpty() ? "]\n}\n" : "\n  ]\n}\n").toString();
    }

    private void requireNotWritten() {
        if (written) {
            throw new IllegalStateException("The manifest was written already; an export has one, and it is the last file.");
        }
    }

    private static String requireText(String text, String what) {
        Objects.requireNonNull(text, what + " must not be null.");
        if (text.isEmpty()) {
            throw new IllegalArgumentException(what + " must not be empty.");
        }
        // Half of a surrogate pair would become a question mark on its way, and the label another one than the file's.
        CharsetEncoder encoder = StandardCharsets.UTF_8.newEncoder();
        if (!encoder.canEncode(text)) {
            throw new IllegalArgumentException(what + " has half of a surrogate pair in it, which UTF-8 can't express.");
        }
        return text;
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder();
        appendText(quoted, text);
        return quoted.toString();
    }

    private static void appendText(StringBuilder json, String text) {
        json.append('"');
        for (int index = 0; index < text.length(); index++) {
            char character = text.charAt(index);
            if (character == '"' || character == '\\') {
                json.append('\\').append(character);
            } else if (character < 0x20 || character == 0x7f || character == '\u2028' || character == '\u2029') {
                // The last three are valid in JSON as they are, and break logs and scripts that it is pasted into.
                json.append(String.format("\\u%04x", (int) character));
            } else {
                json.append(character);
            }
        }
        json.append('"');
    }

    private static final long UNCOUNTED = -1;

    private enum State {
        UNOPENED("could not be opened, or is being opened"),
        OPEN("is still open"),
        INCOMPLETE("was closed without complete()"),
        BROKEN("could not be written"),
        COMPLETE("is complete");

        private final String words;

        State(String words) {
            this.words = words;
        }
    }

    /** What is known of one file. Guarded by the manifest's lock. */
    private static final class Entry {
        private State state = State.UNOPENED;
        private long records = UNCOUNTED;
        private long bytes;
        private String sha256;
    }

    /**
     * One file of the export, while it is written. What passes through is uploaded unchanged, measured and digested.
     *
     * <p>Say {@link #complete} when the last record was written, before closing: try-with-resources closes a file after an exception, too, and
     * only then it is known which of both it was.
     */
    public static final class ExportedFile extends OutputStream {
        private final ExportManifest manifest;
        private final Entry entry;
        private final OutputStream target;
        private final MessageDigest digest = sha256();
        private long bytes;
        private long records = UNCOUNTED;
        private LineCounter lines;
        private boolean complete;
        private boolean broken;
        private boolean closed;

        private ExportedFile(ExportManifest manifest, Entry entry, OutputStream target) {
            this.manifest = manifest;
            this.entry = entry;
            this.target = target;
        }

        /**
         * Counts one record.
         *
         * @throws IllegalStateException when the file was closed, or its lines are counted
         */
        public void countRecord() {
            countRecords(1);
        }

        /**
         * Counts records. A file whose records nobody counts is named without a number; zero is a number.
         *
         * @param number how many more there are
         * @throws IllegalStateException when the file was closed, or its lines are counted
         */
        public void countRecords(long number) {
            if (closed) {
                throw new IllegalStateException("The file was closed already; count its records before.");
            }
            if (lines != null) {
                throw new IllegalStateException("The file's lines are counted already; count either lines or records.");
            }
            if (number < 0) {
                throw new IllegalArgumentException("A number of records must not be negative.");
            }
            records = Math.addExact(Math.max(records, 0), number);
        }

        /**
         * Counts each line that holds more than white space as a record, as the cloud app does with NDJSON.
         *
         * @param next where the lines go to: this file, or a compressing stream around it
         * @return the stream to write the lines to; closing it closes {@code next}
         * @throws IllegalStateException when records are counted in another way already
         */
        public OutputStream countingLines(OutputStream next) {
            Objects.requireNonNull(next, "The next stream must not be null.");
            if (closed || lines != null || records != UNCOUNTED) {
                throw new IllegalStateException("Lines are counted from the beginning of a file, and once.");
            }
            lines = new LineCounter(next);
            return lines;
        }

        /** Says that everything was written that belongs into this file; what compression still holds back follows with the closing. */
        public void complete() {
            if (closed) {
                throw new IllegalStateException("The file was closed already; call complete() before.");
            }
            complete = true;
        }

        @Override
        public void write(int value) throws IOException {
            requireOpen();
            boolean done = false;
            try {
                target.write(value);
                done = true;
            } finally {
                broken |= !done;
            }
            digest.update((byte) value);
            bytes++;
        }

        @Override
        public void write(byte[] source, int offset, int length) throws IOException {
            requireOpen();
            boolean done = false;
            try {
                target.write(source, offset, length);
                done = true;
            } finally {
                broken |= !done;
            }
            digest.update(source, offset, length);
            bytes += length;
        }

        @Override
        public void flush() throws IOException {
            boolean done = false;
            try {
                target.flush();
                done = true;
            } finally {
                broken |= !done;
            }
        }

        /** Closes the upload; from now on the file is visible to the cloud app. Closing again does nothing. */
        @Override
        public void close() throws IOException {
            if (closed) {
                return;
            }
            closed = true;
            boolean done = false;
            try {
                target.close();
                done = true;
            } finally {
                broken |= !done;
                hand();
            }
        }

        /** Hands what was measured over to the manifest, which other threads read. */
        private void hand() {
            synchronized (manifest) {
                entry.bytes = bytes;
                entry.sha256 = hexadecimal(digest.digest());
                entry.records = lines == null ? records : lines.records();
                entry.state = broken ? State.BROKEN : complete ? State.COMPLETE : State.INCOMPLETE;
            }
        }

        private void requireOpen() throws IOException {
            if (closed) {
                throw new IOException("The file was closed already.");
            }
        }

        private static MessageDigest sha256() {
            try {
                return MessageDigest.getInstance("SHA-256");
            } catch (NoSuchAlgorithmException impossible) {
                throw new IllegalStateException("Every Java platform has SHA-256.", impossible);
            }
        }

        private static String hexadecimal(byte[] bytes) {
            StringBuilder text = new StringBuilder(2 * bytes.length);
            for (byte value : bytes) {
                text.append(Character.forDigit((value >> 4) & 0xf, 16)).append(Character.forDigit(value & 0xf, 16));
            }
            return text.toString();
        }
    }

    /** Counts lines that hold more than white space. A byte order mark at the beginning is not content. */
    private static final class LineCounter extends OutputStream {
        private static final int[] BYTE_ORDER_MARK = {0xef, 0xbb, 0xbf};

        private final OutputStream next;
        private long ended;
        private boolean holdsSomething;
        /** How many bytes of the mark were seen at the beginning; -1 once it is passed, or is none. */
        private int ofMark;

        private LineCounter(OutputStream next) {
            this.next = next;
        }

        @Override
        public void write(int value) throws IOException {
            next.write(value);
            count(value & 0xff);
        }

        @Override
        public void write(byte[] source, int offset, int length) throws IOException {
            next.write(source, offset, length);
            for (int index = offset; index < offset + length; index++) {
                count(source[index] & 0xff);
            }
        }

        private void count(int value) {
            if (ofMark >= 0) {
                if (value == BYTE_ORDER_MARK[ofMark]) {
                    ofMark = ofMark == BYTE_ORDER_MARK.length - 1 ? -1 : ofMark + 1;
                    return;
                }
                // The beginning of a mark without its rest is content.
                holdsSomething = ofMark > 0;
                ofMark = -1;
            }
            if (value == '\n') {
                ended += holdsSomething ? 1 : 0;
                holdsSomething = false;
            } else if (value != ' ' && value != '\t' && value != '\r' && value != '\f') {
                holdsSomething = true;
            }
        }

        @Override
        public void flush() throws IOException {
            next.flush();
        }

        @Override
        public void close() throws IOException {
            next.close();
        }

        /** Lines so far; the last one needs no end. */
        private long records() {
            return ended + (holdsSomething || ofMark > 0 ? 1 : 0);
        }
    }
}
