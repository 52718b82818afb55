package org.finetdeploy.app;

import android.content.Context;

import java.util.Map;

import org.finetdeploy.core.run.ResultTable;
import org.finetdeploy.core.run.RunFolder;

/** A run's table as text. */
final class RunText {
    private RunText() {}

    /** How far the run is, and a line or two for each row. Only where nothing is added to the run meanwhile. */
    static String of(Context context, RunFolder run) {
        StringBuilder lines = new StringBuilder();
        int total = run.job.visitCount();
        lines.append(context.getString(R.string.done, total - run.missing().size(), total)).append('\n');
        for (Map.Entry<String, String> row : ResultTable.of(run).entrySet()) {
            lines.append('\n').append(row.getKey()).append("  ").append(run.job.labelOf(row.getKey()));
            lines.append("\n    ").append(row.getValue());
        }
        return lines.toString();
    }
}
