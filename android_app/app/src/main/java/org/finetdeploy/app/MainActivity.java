package org.finetdeploy.app;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;
import android.view.ViewGroup.LayoutParams;
import android.widget.ArrayAdapter;
import android.widget.Button;
import android.widget.CheckBox;
import android.widget.LinearLayout;
import android.widget.ListView;
import android.widget.Spinner;
import android.widget.TextView;

import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

import org.finetdeploy.core.Problem;

/** Lists the bundles and runs in the app's folder; measures the chosen bundles with a preset, or opens a run. */
public final class MainActivity extends Activity {
    private static final String DEFAULT_PRESET = "quick";

    private TextView word;
    private ListView bundles;
    private ListView runs;
    private Spinner preset;
    private Spinner threads;
    private CheckBox mixed;
    private Button measure;
    private List<String> offered;
    private AppFolder folder;
    private RunPlanner planner;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        LinearLayout layout = new LinearLayout(this);
        layout.setOrientation(LinearLayout.VERTICAL);
        layout.setFitsSystemWindows(true);
        word = add(layout, new TextView(this), 0);
        bundles = add(layout, new ListView(this), 1);
        bundles.setChoiceMode(ListView.CHOICE_MODE_MULTIPLE);
        preset = add(layout, new Spinner(this), 0);
        threads = add(layout, new Spinner(this), 0);
        mixed = add(layout, new CheckBox(this), 0);
        mixed.setText(R.string.mixed);
        measure = add(layout, new Button(this), 0);
        measure.setText(R.string.measure);
        measure.setOnClickListener(view -> measure());
        runs = add(layout, new ListView(this), 1);
        runs.setOnItemClickListener(
                (parent, view, position, id) -> open((String) parent.getItemAtPosition(position), false));
        setContentView(layout);
        try {
            folder = new AppFolder(this);
            planner = new RunPlanner(folder, AppEngines.all(this).runtimes());
            offer();
        } catch (Problem problem) {
            measure.setEnabled(false);
            word.setText(problem.getMessage());
        }
    }

    private static <V extends android.view.View> V add(LinearLayout layout, V view, int weight) {
        int height = weight == 0 ? LayoutParams.WRAP_CONTENT : 0;
        layout.addView(view, new LinearLayout.LayoutParams(LayoutParams.MATCH_PARENT, height, weight));
        return view;
    }

    private void offer() {
        List<String> presets = new ArrayList<>();
        for (String name : planner.presets()) {
            presets.add(name + ": " + planner.description(name));
        }
        preset.setAdapter(adapter(android.R.layout.simple_spinner_dropdown_item, presets));
        preset.setSelection(planner.presets().indexOf(DEFAULT_PRESET));
        int[] counts = RunPlanner.threads();
        List<String> choices = new ArrayList<>();
        for (int count = 1; count <= counts[1]; count++) {
            choices.add(getResources().getQuantityString(R.plurals.threads, count, count));
        }
        threads.setAdapter(adapter(android.R.layout.simple_spinner_dropdown_item, choices));
        threads.setSelection(counts[0] - 1);
    }

    private ArrayAdapter<String> adapter(int layout, List<String> lines) {
        return new ArrayAdapter<>(this, layout, lines);
    }

    /** What was pushed meanwhile is seen when the app comes to the front. */
    @Override
    protected void onResume() {
        super.onResume();
        if (folder == null) {
            return;
        }
        List<String> found = folder.bundles();
        if (!found.equals(offered)) { // else what was chosen stays chosen
            offered = found;
            bundles.setAdapter(adapter(android.R.layout.simple_list_item_multiple_choice, found));
        }
        runs.setAdapter(adapter(android.R.layout.simple_list_item_1, folder.runs()));
        List<String> closed = folder.closed();
        if (!closed.isEmpty()) {
            word.setText(getString(R.string.closed, String.join(", ", closed), folder.path()));
        } else if (bundles.getCount() == 0 && runs.getCount() == 0) {
            word.setText(getString(R.string.nothing, folder.path()));
        } else {
            word.setText(R.string.choose);
        }
    }

    private void measure() {
        List<String> chosen = new ArrayList<>();
        for (int i = 0; i < bundles.getCount(); i++) {
            if (bundles.isItemChecked(i)) {
                chosen.add((String) bundles.getItemAtPosition(i));
            }
        }
        String name = planner.presets().get(preset.getSelectedItemPosition());
        int count = threads.getSelectedItemPosition() + 1;
        boolean mixedFusion = mixed.isChecked();
        measure.setEnabled(false);
        word.setText(R.string.checking);
        new Thread(() -> plan(chosen, name, count, mixedFusion), "finet-plan").start();
    }

    private void plan(List<String> chosen, String name, int count, boolean mixedFusion) {
        try {
            String run = planner.plan(chosen, name, count, mixedFusion, Instant.now());
            runOnUiThread(() -> planned(run, null));
        } catch (Problem problem) {
            runOnUiThread(() -> planned(null, problem.getMessage()));
        }
    }

    private void planned(String run, String problem) {
        measure.setEnabled(true);
        word.setText(problem);
        if (run != null && !isFinishing()) {
            open(run, true);
        }
    }

    private void open(String run, boolean start) {
        startActivity(new Intent(this, RunActivity.class)
                .putExtra(RunActivity.RUN, run)
                .putExtra(RunActivity.START, start));
    }
}
