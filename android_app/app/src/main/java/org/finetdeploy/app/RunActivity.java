package org.finetdeploy.app;

import android.app.Activity;
import android.content.Intent;
import android.graphics.Typeface;
import android.net.Uri;
import android.os.Bundle;
import android.os.PowerManager;
import android.view.Window;
import android.view.WindowManager;
import android.widget.Button;
import android.widget.LinearLayout;
import android.widget.ScrollView;
import android.widget.TextView;

import java.util.ArrayList;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.run.RunFolder;

/**
 * One run: its table as it grows, a button to go on with it and one to share its records. The run ends with the visit
 * that is running when the screen is left: Android lets no app start a service from behind another one.
 */
public final class RunActivity extends Activity implements CurrentRun.Viewer {
    /** Extra: name of the run's folder in the app's folder. */
    static final String RUN = "run";
    /** Extra: whether to go on with it at once. */
    static final String START = "start";

    private TextView text;
    private Button start;
    private Button share;
    private String name;
    private CurrentRun running;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        name = String.valueOf(getIntent().getStringExtra(RUN));
        setTitle(name);
        LinearLayout layout = new LinearLayout(this);
        layout.setOrientation(LinearLayout.VERTICAL);
        layout.setFitsSystemWindows(true);
        start = button(layout, R.string.start);
        start.setOnClickListener(view -> startOrStop());
        share = button(layout, R.string.share);
        share.setOnClickListener(view -> share());
        text = new TextView(this);
        text.setTextIsSelectable(true);
        text.setTypeface(Typeface.MONOSPACE);
        ScrollView scroll = new ScrollView(this);
        scroll.addView(text);
        layout.addView(scroll);
        setContentView(layout);
        running = CurrentRun.find(name);
        if (running != null) {
            follow(true);
        } else if (saved == null && getIntent().getBooleanExtra(START, false)) {
            startOrStop();
        } else {
            load();
        }
    }

    private Button button(LinearLayout layout, int label) {
        Button button = new Button(this);
        button.setText(label);
        layout.addView(button);
        return button;
    }

    @Override
    protected void onStop() {
        super.onStop();
        if (running != null && !isChangingConfigurations()) {
            running.stop();
        }
    }

    @Override
    protected void onDestroy() {
        if (running != null) {
            running.show(null);
        }
        super.onDestroy();
    }

    /** Reads what is there of the run: a long one takes a while. */
    private void load() {
        start.setEnabled(false);
        share.setEnabled(false);
        new Thread(() -> {
            String found;
            boolean good = false;
            try {
                found = RunText.of(this, new RunFolder(new AppFolder(this).resolve(name), Schema.load()));
                good = true;
            } catch (Problem problem) {
                found = problem.getMessage();
            }
            String shown = found;
            boolean readable = good;
            runOnUiThread(() -> loaded(shown, readable));
        }, "finet-load").start();
    }

    private void loaded(String shown, boolean readable) {
        if (running == null) {
            text.setText(shown);
            start.setEnabled(readable);
            share.setEnabled(readable && RecordsProvider.hasRecords(this, name));
        }
    }

    private void startOrStop() {
        if (running != null) {
            running.stop();
            start.setEnabled(false);
            return;
        }
        try {
            running = CurrentRun.start(name, this, measuring(true));
            follow(false);
        } catch (Problem problem) {
            measuring(false);
            text.setText(problem.getMessage());
        }
    }

    private void follow(boolean again) {
        if (again) {
            measuring(true);
        }
        start.setText(R.string.stop);
        running.show(this);
        share.setEnabled(false);
    }

    /** The screen stays on, and the phone keeps to a speed that it can hold; whether it has that mode. */
    private boolean measuring(boolean on) {
        Window window = getWindow();
        if (on) {
            window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        } else {
            window.clearFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        }
        boolean supported = getSystemService(PowerManager.class).isSustainedPerformanceModeSupported();
        if (supported) {
            window.setSustainedPerformanceMode(on);
        }
        return supported;
    }

    @Override
    public void changed(String table) {
        text.setText(table);
    }

    @Override
    public void ended(String problem) {
        running = null;
        measuring(false);
        start.setEnabled(true);
        start.setText(R.string.start);
        share.setEnabled(RecordsProvider.hasRecords(this, name));
        if (problem != null) {
            text.append("\n\n" + problem);
        }
    }

    /** Job and records: a report is made from both. */
    private void share() {
        ArrayList<Uri> files = new ArrayList<>();
        for (String file : RecordsProvider.FILES) {
            files.add(RecordsProvider.of(name, file));
        }
        Intent send = new Intent(Intent.ACTION_SEND_MULTIPLE)
                .setType(RecordsProvider.TYPE)
                .putParcelableArrayListExtra(Intent.EXTRA_STREAM, files)
                .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION);
        startActivity(Intent.createChooser(send, getString(R.string.share)));
    }
}
