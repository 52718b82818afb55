package org.finetdeploy.core.run;

import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** Each record is written when its phase is over: what it shows is that the next phase had begun. */
final class Phases {
    private static final List<String> RECORDS = Arrays.asList("start", "load", "first", "warmup", "samples", "end");
    private static final List<String> NEXT = Arrays.asList("load", "first", "warmup", "timing", "check", "end");

    private Phases() {}

    /** The phase that a visit was in after these records. */
    static String after(List<Map<String, Object>> records) {
        String phase = "start";
        for (Map<String, Object> record : records) {
            int at = RECORDS.indexOf(record.get("type"));
            phase = at < 0 ? phase : NEXT.get(at);
        }
        return phase;
    }
}
