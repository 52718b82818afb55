package org.finetdeploy.core.protocol;

import java.util.Map;

/** Where the records of a visit go. */
public interface RecordSink {
    /** Takes a record as soon as its phase is over; throws {@link Unwritable}. */
    void write(Map<String, Object> record);
}
