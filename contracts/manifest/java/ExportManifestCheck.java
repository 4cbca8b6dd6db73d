// A neutral package: move the class into one of your own.
package com.example.migration.export;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.zip.GZIPOutputStream;

/**
 * Checks {@link ExportManifest} by itself, without a test library, and leaves exports behind that validate.py can check as well:
 *
 * <pre>{@code
 * javac --release 8 -encoding UTF-8 -d classes *.java
 * java -cp classes com.example.migration.export.ExportManifestCheck FOLDER
 * for name in parallel example empty; do
 *     python3 ../validate.py --strict FOLDER/$name/export-manifest --files FOLDER/$name || break
 * done
 * }</pre>
 */
public final class ExportManifestCheck {
    private static int checks;

    private ExportManifestCheck() {}

    /** Something that may throw anything. */
    private interface Action {
        void run() throws Exception;
    }

    /** The migration platform, as far as it matters here: a file is there once its stream was closed. */
    private static final class Platform implements ExportManifest.Upload {
        private final Map<String, byte[]> files = new ConcurrentHashMap<>();

        @Override
        public OutputStream open(String label) {
            return new ByteArrayOutputStream() {
                @Override
                public void close() {
                    expect(files.putIfAbsent(label, toByteArray()) == null, "no label is uploaded twice: " + label);
                }
            };
        }

        private String manifest() {
            return new String(files.get(ExportManifest.DEFAULT_LABEL), StandardCharsets.UTF_8);
        }

        private void writeInto(Path folder) throws IOException {
            for (Map.Entry<String, byte[]> file : files.entrySet()) {
                Path path = folder.resolve(file.getKey());
                Files.createDirectories(path.getParent());
                Files.write(path, file.getValue());
            }
        }
    }

    /** A stream that fails at one point. */
    private static final class Failing extends OutputStream {
        private final String at;

        private Failing(String at) {
            this.at = at;
        }

        private void fail(String here) throws IOException {
            if (at.equals(here)) {
                throw new IOException("as planned");
            }
        }

        @Override
        public void write(int value) throws IOException {
            fail("write of a byte");
        }

        @Override
        public void write(byte[] source, int offset, int length) throws IOException {
            fail("write");
        }

        @Override
        public void flush() throws IOException {
            fail("flush");
        }

        @Override
        public void close() throws IOException {
            fail("close");
        }
    }

    /**
     * Runs all checks.
     *
     * @param arguments a folder for the exports
     */
    public static void main(String[] arguments) {
        if (arguments.length != 1) {
            System.err.println("Name one folder for the exports that validate.py checks.");
            System.exit(2);
        }
        try {
            checkAll(Paths.get(arguments[0]));
        } catch (Throwable failure) {
            failure.printStackTrace();
            // Threads of a check that failed half-way would keep the program running.
            System.exit(1);
        }
        System.out.println("All " + checks + " checks passed.");
    }

    private static void checkAll(Path folder) throws Exception {
        manyThreadsExportAtTheSameTime(folder.resolve("parallel"));
        theExampleExports(folder.resolve("example"));
        anEmptyExportNamesNoFile(folder.resolve("empty"));
        theManifestsLabelCanBeAnotherOne();
        everyLabelIsEscaped();
        recordsAreCountedInEitherWay();
        linesAreCountedAsTheCloudAppCountsThem();
        aLabelIsTakenOnce();
        aRaceForALabelHasOneWinner();
        badTextsAreRefused();
        aFileThatIsNotCompleteKeepsTheManifestBack();
        aFileThatFailsKeepsTheManifestBack();
        nothingGoesOnAfterTheManifest();
        noMoreFilesThanAllowed();
        aManifestThatIsTooLargeIsNotUploaded();
    }

    private static void manyThreadsExportAtTheSameTime(Path folder) throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check \"of\" the \\ class", "1.0 ✓").schemaVersion("2026-11");
        ExecutorService threads = Executors.newFixedThreadPool(16);
        List<Future<?>> files = new ArrayList<>();
        int[] recordsOf = new int[200];
        for (int index = 0; index < recordsOf.length; index++) {
            int number = index;
            files.add(threads.submit(() -> {
                Random chance = new Random(number);
                recordsOf[number] = chance.nextInt(400);
                boolean packed = number % 2 == 0;
                String label = String.format("folder %d/päges-%04d.ndjson%s", number % 7, number, packed ? ".gz" : "");
                try (ExportManifest.ExportedFile file = manifest.begin(label, platform);
                        OutputStream lines = file.countingLines(packed ? new GZIPOutputStream(file) : file)) {
                    for (int record = 0; record < recordsOf[number]; record++) {
                        byte[] line = ("{\"id\":" + record + ",\"noise\":" + chance.nextLong() + "}\n\n").getBytes(StandardCharsets.UTF_8);
                        // In every way that a stream can be written to.
                        if (record % 3 == 0) {
                            for (byte value : line) {
                                lines.write(value);
                            }
                        } else if (record % 3 == 1) {
                            lines.write(line);
                        } else {
                            byte[] around = new byte[line.length + 10];
                            System.arraycopy(line, 0, around, 5, line.length);
                            lines.write(around, 5, line.length);
                        }
                    }
                    lines.flush();
                    file.complete();
                }
                return null;
            }));
        }
        for (Future<?> file : files) {
            file.get();
        }
        threads.shutdown();
        manifest.upload(platform);
        String json = platform.manifest();
        Matcher entry = Pattern.compile("\\{\"label\": \"(.*?)\", \"records\": (\\d+), \"bytes\": (\\d+), \"sha256\": \"([0-9a-f]{64})\"}")
                .matcher(json);
        int found = 0;
        String before = "";
        while (entry.find()) {
            found++;
            String label = entry.group(1);
            byte[] uploaded = platform.files.get(label);
            expect(before.compareTo(label) < 0, "labels are in order");
            before = label;
            expect(Long.parseLong(entry.group(3)) == uploaded.length, label + " has its length");
            expect(entry.group(4).equals(digestOf(uploaded)), label + " has its digest");
            int number = Integer.parseInt(label.replaceAll(".*-(\\d{4})\\..*", "$1"));
            expect(Integer.parseInt(entry.group(2)) == recordsOf[number], label + " has its records");
        }
        expect(found == 200, "all files are named");
        expect(json.contains("\"name\": \"Check \\\"of\\\" the \\\\ class\", \"version\": \"1.0 ✓\""), "the exporter is named");
        expect(json.contains("\"schema_version\": \"2026-11\""), "the schema's version is named");
        expect(Pattern.compile("\"exported_at\": \"\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ\"").matcher(json).find(), "the time is named");
        platform.writeInto(folder);
    }

    private static void theExampleExports(Path folder) throws Exception {
        Platform platform = new Platform();
        List<List<String>> parts = new ArrayList<>();
        for (int part = 0; part < 9; part++) {
            List<String> records = new ArrayList<>();
            for (int record = 0; record < part * 10; record++) {
                records.add("{\"id\":" + record + ",\"title\":\"Übersicht\"}");
            }
            parts.add(records);
        }
        new ExportExample("4.2.0").export(parts, platform);
        expect(platform.files.size() == 10, "nine files and the manifest");
        expect(platform.manifest().contains("\"label\": \"pages-0001-of-0009.ndjson.gz\", \"records\": 0,"), "an empty file has zero records");
        platform.writeInto(folder);

        Platform broken = new Platform();
        expectRefusal(IOException.class, "The export failed.", () -> new ExportExample("4.2.0").export(parts, label -> {
            if (label.startsWith("pages-0004")) {
                return new Failing("write");
            }
            return broken.open(label);
        }));
        expect(!broken.files.containsKey(ExportManifest.DEFAULT_LABEL), "a failed export has no manifest");
    }

    private static void anEmptyExportNamesNoFile(Path folder) throws Exception {
        Platform platform = new Platform();
        new ExportManifest("Check", "1").upload(platform);
        expect(platform.manifest().contains("\"files\": []"), "no file is named");
        expect(!platform.manifest().contains("schema_version"), "what nobody stated is not written");
        platform.writeInto(folder);
    }

    private static void theManifestsLabelCanBeAnotherOne() throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("done", "Check", "1");
        expectRefusal(IllegalArgumentException.class, "the manifest's own", () -> manifest.begin("done", platform));
        write(manifest, ExportManifest.DEFAULT_LABEL, platform);
        manifest.upload(platform);
        expect(platform.files.keySet().containsAll(Arrays.asList("done", ExportManifest.DEFAULT_LABEL)), "both are uploaded");
    }

    private static void everyLabelIsEscaped() throws Exception {
        StringBuilder all = new StringBuilder();
        for (char character = 0; character < 0x180; character++) {
            all.append(character);
        }
        all.append("\u2028\u2029\ufeff\uffff😀");
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        write(manifest, all.toString(), platform);
        manifest.upload(platform);
        String json = platform.manifest();
        int from = json.indexOf("\"label\": \"") + "\"label\": \"".length();
        expect(unescaped(json, from).equals(all.toString()), "every character comes back");
        for (char character = 0; character < 0x20; character++) {
            expect(character == '\n' || json.indexOf(character) < 0, "no control character is written as it is");
        }
    }

    /** Reads a JSON text from an index to its closing quote, by RFC 8259 and not by what the class writes. */
    private static String unescaped(String json, int from) {
        StringBuilder text = new StringBuilder();
        for (int at = from; json.charAt(at) != '"'; at++) {
            if (json.charAt(at) != '\\') {
                text.append(json.charAt(at));
                continue;
            }
            at++;
            char escape = json.charAt(at);
            int simple = "\"\\/bfnrt".indexOf(escape);
            if (escape == 'u') {
                text.append((char) Integer.parseInt(json.substring(at + 1, at + 5), 16));
                at += 4;
            } else if (simple >= 0) {
                text.append("\"\\/\b\f\n\r\t".charAt(simple));
            } else {
                throw new AssertionError("JSON has no escape \\" + escape);
            }
        }
        return text.toString();
    }

    private static void recordsAreCountedInEitherWay() throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        try (ExportManifest.ExportedFile file = manifest.begin("array.json", platform)) {
            file.write("[1,2,3,4]".getBytes(StandardCharsets.UTF_8));
            file.countRecord();
            file.countRecords(3);
            expectRefusal(IllegalArgumentException.class, "negative", () -> file.countRecords(-1));
            expectRefusal(IllegalStateException.class, "from the beginning", () -> file.countingLines(file));
            file.complete();
        }
        try (ExportManifest.ExportedFile file = manifest.begin("lines.ndjson", platform); OutputStream lines = file.countingLines(file)) {
            expectRefusal(IllegalStateException.class, "either lines or records", file::countRecord);
            expectRefusal(IllegalStateException.class, "once", () -> file.countingLines(file));
            lines.write('1');
            file.complete();
        }
        write(manifest, "uncounted", platform);
        manifest.upload(platform);
        String json = platform.manifest();
        expect(json.contains("{\"label\": \"array.json\", \"records\": 4, \"bytes\": 9,"), "records that the caller counts");
        expect(json.contains("{\"label\": \"lines.ndjson\", \"records\": 1, \"bytes\": 1,"), "lines, the last without its end");
        expect(json.contains("{\"label\": \"uncounted\", \"bytes\": 1,"), "a file that nobody counts has no number");
    }

    private static void linesAreCountedAsTheCloudAppCountsThem() throws Exception {
        String mark = "\ufeff";
        Object[][] cases = {
            {"", 0}, {"\n", 0}, {"\r\n \t\f\n", 0}, {"1", 1}, {"1\n", 1}, {"1\n2", 2}, {"1\n\n\r\n2\r\n", 2}, {"\u000b\n", 1},
            {mark, 0}, {mark + "\n1", 1}, {mark + "1\n" + mark + "\n", 2}, {"é\nï", 2},
        };
        for (Object[] one : cases) {
            byte[] content = ((String) one[0]).getBytes(StandardCharsets.UTF_8);
            expect(countedLines(content) == (Integer) one[1], "lines of " + Arrays.toString(content));
        }
        expect(countedLines(new byte[] {(byte) 0xef, (byte) 0xbb}) == 1, "the beginning of a mark is content");
        expect(countedLines(new byte[] {(byte) 0xef, '\n', '1'}) == 2, "also before a line's end");
    }

    private static int countedLines(byte[] content) throws IOException {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        try (ExportManifest.ExportedFile file = manifest.begin("a", platform); OutputStream lines = file.countingLines(file)) {
            lines.write(content);
            file.complete();
        }
        manifest.upload(platform);
        Matcher records = Pattern.compile("\"records\": (\\d+)").matcher(platform.manifest());
        expect(records.find(), "lines are always a number");
        return Integer.parseInt(records.group(1));
    }

    private static void aLabelIsTakenOnce() throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        write(manifest, "a", platform);
        expectRefusal(IllegalArgumentException.class, "was begun already", () -> manifest.begin("a", label -> {
            throw new AssertionError("nothing may be opened for a label that is refused");
        }));
        write(manifest, "A", platform);
        manifest.upload(platform);
    }

    private static void aRaceForALabelHasOneWinner() throws Exception {
        for (int round = 0; round < 50; round++) {
            Platform platform = new Platform();
            ExportManifest manifest = new ExportManifest("Check", "1");
            ExecutorService threads = Executors.newFixedThreadPool(8);
            CountDownLatch start = new CountDownLatch(1);
            List<Future<Boolean>> runners = new ArrayList<>();
            for (int runner = 0; runner < 8; runner++) {
                runners.add(threads.submit(() -> {
                    start.await();
                    try {
                        write(manifest, "a", platform);
                        return true;
                    } catch (IllegalArgumentException refused) {
                        return false;
                    }
                }));
            }
            start.countDown();
            int winners = 0;
            for (Future<Boolean> runner : runners) {
                winners += runner.get() ? 1 : 0;
            }
            threads.shutdown();
            expect(winners == 1, "one thread gets the label");
            manifest.upload(platform);
        }
    }

    private static void badTextsAreRefused() {
        ExportManifest manifest = new ExportManifest("Check", "1");
        Platform platform = new Platform();
        expectRefusal(NullPointerException.class, "must not be null", () -> manifest.begin(null, platform));
        expectRefusal(IllegalArgumentException.class, "must not be empty", () -> manifest.begin("", platform));
        expectRefusal(IllegalArgumentException.class, "surrogate", () -> manifest.begin("a\ud83d", platform));
        expectRefusal(IllegalArgumentException.class, "surrogate", () -> manifest.begin("\ude00b", platform));
        expectRefusal(IllegalArgumentException.class, "the manifest's own", () -> manifest.begin(ExportManifest.DEFAULT_LABEL, platform));
        expectRefusal(NullPointerException.class, "must not be null", () -> new ExportManifest(null, "1"));
        expectRefusal(IllegalArgumentException.class, "must not be empty", () -> new ExportManifest("Check", ""));
        expectRefusal(IllegalArgumentException.class, "must not be empty", () -> manifest.schemaVersion(""));
    }

    private static void aFileThatIsNotCompleteKeepsTheManifestBack() throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        ExportManifest.ExportedFile open = manifest.begin("open", platform);
        expectRefusal(IllegalStateException.class, "\"open\" is still open", () -> manifest.upload(platform));
        open.complete();
        open.close();
        open.close();
        expectRefusal(IOException.class, "closed already", () -> open.write(1));
        expectRefusal(IllegalStateException.class, "closed already", open::countRecord);
        expectRefusal(IllegalStateException.class, "closed already", open::complete);
        expectRefusal(IllegalArgumentException.class, "as planned", () -> {
            try (ExportManifest.ExportedFile file = manifest.begin("half", platform)) {
                file.write(1);
                throw new IllegalArgumentException("as planned");
            }
        });
        expectRefusal(IllegalStateException.class, "\"half\" was closed without complete()", () -> manifest.upload(platform));
        expect(!platform.files.containsKey(ExportManifest.DEFAULT_LABEL), "no manifest is uploaded");

        ExportManifest crowded = new ExportManifest("Check", "1");
        for (int number = 0; number < 8; number++) {
            crowded.begin("file " + number, platform);
        }
        expectRefusal(IllegalStateException.class, "\"file 4\" is still open and 3 more.", () -> crowded.upload(platform));
    }

    private static void aFileThatFailsKeepsTheManifestBack() throws Exception {
        for (String at : Arrays.asList("write of a byte", "write", "flush", "close")) {
            ExportManifest manifest = new ExportManifest("Check", "1");
            Platform platform = new Platform();
            expectRefusal(IOException.class, "as planned", () -> {
                try (ExportManifest.ExportedFile file = manifest.begin("a", label -> new Failing(at))) {
                    // Said too early, as an exporter might.
                    file.complete();
                    file.write(0);
                    file.write(new byte[] {1, 2});
                    file.flush();
                }
            });
            expectRefusal(IllegalStateException.class, "\"a\" could not be written", () -> manifest.upload(platform));
            expect(platform.files.isEmpty(), "no manifest is uploaded");
        }
        // What compression holds back is written with the closing, after complete().
        ExportManifest compressed = new ExportManifest("Check", "1");
        expectRefusal(IOException.class, "as planned", () -> {
            boolean[] closing = {false};
            OutputStream failing = new OutputStream() {
                @Override
                public void write(int value) throws IOException {
                    if (closing[0]) {
                        throw new IOException("as planned");
                    }
                }
            };
            try (ExportManifest.ExportedFile file = compressed.begin("a", label -> failing); OutputStream out = new GZIPOutputStream(file)) {
                out.write(1);
                file.complete();
                closing[0] = true;
            }
        });
        expectRefusal(IllegalStateException.class, "\"a\" could not be written", () -> compressed.upload(new Platform()));

        ExportManifest unopened = new ExportManifest("Check", "1");
        expectRefusal(IOException.class, "as planned", () -> unopened.begin("a", label -> {
            throw new IOException("as planned");
        }));
        expectRefusal(IllegalStateException.class, "\"a\" could not be opened", () -> unopened.upload(new Platform()));
    }

    private static void nothingGoesOnAfterTheManifest() throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        manifest.upload(platform);
        expectRefusal(IllegalStateException.class, "written already", () -> manifest.begin("a", platform));
        expectRefusal(IllegalStateException.class, "written already", () -> manifest.schemaVersion("1"));
        expectRefusal(IllegalStateException.class, "written already", () -> manifest.upload(platform));

        ExportManifest failed = new ExportManifest("Check", "1");
        expectRefusal(IOException.class, "as planned", () -> failed.upload(label -> new Failing("close")));
        expectRefusal(IllegalStateException.class, "written already", () -> failed.upload(platform));
    }

    private static void noMoreFilesThanAllowed() throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        for (int number = 0; number < ExportManifest.FILES_MAX; number++) {
            write(manifest, "file " + number, platform);
        }
        expectRefusal(IllegalStateException.class, "at most 10000 files", () -> manifest.begin("one more", platform));
        manifest.upload(platform);
    }

    private static void aManifestThatIsTooLargeIsNotUploaded() throws Exception {
        Platform platform = new Platform();
        ExportManifest manifest = new ExportManifest("Check", "1");
        String long1000 = String.join("", Collections.nCopies(1000, "x"));
        for (int number = 0; number < 4000; number++) {
            write(manifest, long1000 + number, platform);
        }
        expectRefusal(IllegalStateException.class, "above the limit", () -> manifest.upload(platform));
        expect(!platform.files.containsKey(ExportManifest.DEFAULT_LABEL), "no manifest is uploaded");
    }

    private static void write(ExportManifest manifest, String label, ExportManifest.Upload upload) throws IOException {
        try (ExportManifest.ExportedFile file = manifest.begin(label, upload)) {
            file.write('x');
            file.complete();
        }
    }

    private static String digestOf(byte[] content) throws Exception {
        StringBuilder text = new StringBuilder();
        for (byte value : MessageDigest.getInstance("SHA-256").digest(content)) {
            text.append(String.format("%02x", value));
        }
        return text.toString();
    }

    private static synchronized void expect(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError("It does not hold that " + what + ".");
        }
        checks++;
    }

    private static void expectRefusal(Class<? extends Throwable> kind, String part, Action action) {
        try {
            action.run();
        } catch (Throwable thrown) {
            if (kind.isInstance(thrown) && String.valueOf(thrown.getMessage()).contains(part)) {
                expect(true, part);
                return;
            }
            throw new AssertionError("Another refusal than expected (" + part + ").", thrown);
        }
        throw new AssertionError("Nothing was refused: " + part);
    }
}
