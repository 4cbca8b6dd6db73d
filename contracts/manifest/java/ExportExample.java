// A neutral package: move the class into one of your own.
package com.example.migration.export;

import java.io.BufferedWriter;
import java.io.IOException;
import java.io.OutputStream;
import java.io.OutputStreamWriter;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.zip.GZIPOutputStream;

/**
 * How a Data Center app exports with an {@link ExportManifest}: several files at the same time, and the manifest when all of them were closed.
 *
 * <p>In the app's migration listener it is called with the migration library's {@code createAppData(label)}, which gives an
 * {@link OutputStream}:
 *
 * <pre>{@code
 * new ExportExample("4.2.0").export(pages, migration::createAppData);
 * }</pre>
 *
 * <p>The object that has this method, and whether it also takes the transfer's id, depend on the library's version; with an id it is
 * {@code label -> gateway.createAppData(transferId, label)}. Whatever gives an {@code OutputStream} for a label will do.
 */
public final class ExportExample {
    private static final int FILES_AT_ONCE = 4;

    private final String appVersion;

    /**
     * An export by one version of the app.
     *
     * @param appVersion the app's version
     */
    public ExportExample(String appVersion) {
        this.appVersion = appVersion;
    }

    /**
     * Exports parts of the app's data, one file each, and then the manifest.
     *
     * @param parts JSON records, one a string without line ends; each list becomes a file
     * @param upload the migration library's {@code createAppData}
     * @throws IOException when anything could not be exported; let it end the listener, so that the platform learns of it
     * @throws InterruptedException when the app is being stopped
     */
    public void export(List<List<String>> parts, ExportManifest.Upload upload) throws IOException, InterruptedException {
        ExportManifest manifest = new ExportManifest("Vault for Confluence", appVersion).schemaVersion("7");
        ExecutorService threads = Executors.newFixedThreadPool(FILES_AT_ONCE);
        try {
            List<Callable<Void>> files = new ArrayList<>();
            for (int index = 0; index < parts.size(); index++) {
                List<String> records = parts.get(index);
                String label = String.format("pages-%04d-of-%04d.ndjson.gz", index + 1, parts.size());
                files.add(() -> exportFile(manifest, label, records, upload));
            }
            for (Future<Void> file : threads.invokeAll(files)) {
                // The first failure ends the export, without a manifest.
                file.get();
            }
        } catch (ExecutionException failure) {
            throw new IOException("The export failed.", failure.getCause());
        } finally {
            threads.shutdownNow();
        }
        // With nothing to export it names no file, and the migration is a success at once.
        manifest.upload(upload);
    }

    private static Void exportFile(
            ExportManifest manifest, String label, List<String> records, ExportManifest.Upload upload) throws IOException {
        // From the outside in: text, compression, measuring, upload.
        try (ExportManifest.ExportedFile file = manifest.begin(label, upload);
                OutputStream compressed = new GZIPOutputStream(file);
                Writer writer = new BufferedWriter(new OutputStreamWriter(compressed, StandardCharsets.UTF_8))) {
            // An empty file has no records, which is not the same as an unknown number of them.
            file.countRecords(0);
            for (String record : records) {
                writer.write(record);
                writer.write('\n');
                file.countRecord();
            }
            // Not reached after an exception, although the file is closed then, too.
            file.complete();
        }
        return null;
    }
}
