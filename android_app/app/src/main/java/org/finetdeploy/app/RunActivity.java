package org.finetdeploy.app;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;
import android.view.Window;
import android.view.WindowManager;
import android.widget.Button;
import android.widget.LinearLayout;
import android.widget.TextView;

import java.nio.file.Path;
import java.util.Map;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.run.JobRun;
import org.finetdeploy.core.run.ResultTable;
import org.finetdeploy.core.run.RunFolder;

/** One run: does its missing visits, shows the table as it grows, shares the records. */
public final class RunActivity extends Activity {
    /** Extra: name of the run's folder in the app's folder. */
    static final String RUN = "run";

    private TextView text;
    private Button start;
    private String name;
    private AppFolder folder;
    private RunFolder run;
    private JobRun job;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        name = String.valueOf(getIntent().getStringExtra(RUN));
        LinearLayout layout = new LinearLayout(this);
        layout.setOrientation(LinearLayout.VERTICAL);
        start = button(layout, R.string.start);
        start.setOnClickListener(view -> startOrStop());
        button(layout, R.string.share).setOnClickListener(view -> share());
        text = new TextView(this);
        text.setTextIsSelectable(true);
        layout.addView(text);
        setContentView(layout);
        setTitle(name);
        try {
            folder = new AppFolder(this);
            run = new RunFolder(folder.resolve(name), Schema.load());
            show();
        } catch (Problem problem) {
            start.setEnabled(false);
            text.setText(problem.getMessage());
        }
    }

    @Override
    protected void onDestroy() {
        if (job != null) {
            job.stop();
        }
        super.onDestroy();
    }

    private Button button(LinearLayout layout, int label) {
        Button button = new Button(this);
        button.setText(label);
        layout.addView(button);
        return button;
    }

    private void startOrStop() {
        if (job != null) {
            job.stop();
            start.setEnabled(false);
            return;
        }
        Path path = folder.resolve(name);
        job = new JobRun(run, path, new ServiceLauncher(this, folder));
        start.setText(R.string.stop);
        measuring(true);
        new Thread(() -> measure(job), "finet-run").start();
    }

    private void measure(JobRun current) {
        String problem = null;
        try {
            current.run(bundle -> folder.resolve(name + "/" + bundle), (done, total) -> runOnUiThread(this::show));
        } catch (Problem found) {
            problem = found.getMessage();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
        String word = problem;
        runOnUiThread(() -> ended(word));
    }

    private void ended(String problem) {
        job = null;
        measuring(false);
        start.setEnabled(true);
        start.setText(R.string.start);
        show();
        if (problem != null) {
            text.append("\n" + problem);
        }
    }

    /** The screen stays on, and the phone keeps to a speed that it can hold, where it can. */
    private void measuring(boolean on) {
        Window window = getWindow();
        if (on) {
            window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        } else {
            window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        }
        if (getSystemService(android.os.PowerManager.class).isSustainedPerformanceModeSupported()) {
            window.setSustainedPerformanceMode(on);
        }
    }

    private void show() {
        StringBuilder lines = new StringBuilder();
        int total = run.job.visitCount();
        lines.append(getString(R.string.done, total - run.missing().size(), total)).append('\n');
        for (Map.Entry<String, String> row : ResultTable.of(run).entrySet()) {
            lines.append('\n').append(row.getKey()).append("  ").append(run.job.labelOf(row.getKey()));
            lines.append("\n    ").append(row.getValue());
        }
        text.setText(lines);
    }

    private void share() {
        Intent send = new Intent(Intent.ACTION_SEND)
                .setType("application/x-ndjson")
                .putExtra(Intent.EXTRA_STREAM, RecordsProvider.of(name))
                .putExtra(Intent.EXTRA_TEXT, text.getText().toString())
                .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION);
        startActivity(Intent.createChooser(send, getString(R.string.share)));
    }
}
