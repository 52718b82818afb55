package org.finetdeploy.core.run;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.protocol.Job;
import org.finetdeploy.core.protocol.Records;
import org.finetdeploy.core.protocol.Schema;

/** {@code job.json} and {@code records.jsonl} of a run, as {@code finet_deploy.bench.records} keeps them. */
public final class RunFolder {
    /** Name of the job in the folder. */
    public static final String JOB = "job.json";
    /** Name of the records in the folder. */
    public static final String RECORDS = "records.jsonl";

    private static final int MAX_JOB_BYTES = 32 << 20;
    private static final int MAX_RECORDS_BYTES = 256 << 20;

    /** The job. */
    public final Job job;
    private final Path folder;
    private final Schema schema;
    private final Map<Integer, List<Map<String, Object>>> visits = new TreeMap<>();
    private int tailBytes;

    /** Problem when the job is missing or none, or the records are another job's. */
    public RunFolder(Path folder, Schema schema) {
        this.folder = folder;
        this.schema = schema;
        job = Job.decode(CheckedFiles.readBounded(folder.resolve(JOB), MAX_JOB_BYTES), schema);
        Path records = folder.resolve(RECORDS);
        if (Files.exists(records)) {
            byte[] data = CheckedFiles.readBounded(records, MAX_RECORDS_BYTES);
            keep(Records.decodeLines(data, schema));
            tailBytes = Records.tailBytes(data);
        }
    }

    /** Before the first visit of this process: closes a line that was cut off and notes that the run goes on. */
    public void resume(String utc) {
        if (visits.isEmpty() && tailBytes == 0) {
            return; // a new run
        }
        byte[] mark = Records.line(Records.resumed(utc, job.visitCount() - missing().size(), tailBytes));
        write(tailBytes == 0 ? new byte[0] : new byte[] {'\n'});
        write(mark);
        tailBytes = 0;
    }

    /** Visits that have no end yet, in order. */
    public List<Integer> missing() {
        List<Integer> found = new ArrayList<>();
        for (int index = 0; index < job.visitCount(); index++) {
            if (!complete(records(index))) {
                found.add(index);
            }
        }
        return found;
    }

    /** The records of a visit; empty when it was not begun. */
    public List<Map<String, Object>> records(int visit) {
        List<Map<String, Object>> found = visits.get(visit);
        return found == null ? Collections.<Map<String, Object>>emptyList() : found;
    }

    /** Appends the records of one visit. Problem when they are another visit's, or cannot be written. */
    public void append(int visit, List<Map<String, Object>> records) {
        for (Map<String, Object> record : records) {
            if (!Long.valueOf(visit).equals(record.get("visit"))) {
                throw new Problem("the records are of another visit");
            }
        }
        for (Map<String, Object> record : records) {
            write(Records.line(record));
        }
        keep(records);
    }

    private void write(byte[] data) {
        Path path = folder.resolve(RECORDS);
        try {
            Files.write(path, data, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException error) {
            throw CheckedFiles.cannot("write", path, error);
        }
    }

    /** The records in a file that a visit wrote; Problem when it holds anything else. */
    List<Map<String, Object>> read(Path records) {
        return Records.decodeLines(
                CheckedFiles.readBounded(records, MAX_RECORDS_BYTES), schema);
    }

    private void keep(List<Map<String, Object>> records) {
        for (Map<String, Object> record : records) {
            Object visit = record.get("visit");
            if (!(visit instanceof Long)) {
                continue; // resumed
            }
            if ((Long) visit >= job.visitCount()) {
                throw new Problem("record of visit " + visit + ", which is not in the job");
            }
            int index = ((Long) visit).intValue();
            if ("start".equals(record.get("type")) || !visits.containsKey(index)) {
                visits.put(index, new ArrayList<Map<String, Object>>()); // one that was cut off is done again
            }
            visits.get(index).add(record);
        }
    }

    private static boolean complete(List<Map<String, Object>> records) {
        for (Map<String, Object> record : records) {
            if ("end".equals(record.get("type")) || "invalid".equals(record.get("type"))) {
                return true;
            }
        }
        return false;
    }
}
