package org.finetdeploy.app;

import android.app.Activity;
import android.content.Intent;
import android.os.Bundle;
import android.widget.ArrayAdapter;
import android.widget.ListView;
import android.widget.TextView;

import java.util.ArrayList;
import java.util.List;

import org.finetdeploy.core.Problem;

/** Lists the runs and bundles that were pushed to the app's folder; a run is opened by touching it. */
public final class MainActivity extends Activity {
    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        try {
            AppFolder folder = new AppFolder(this);
            List<String> runs = folder.runs();
            List<String> bundles = folder.bundles();
            if (runs.isEmpty() && bundles.isEmpty()) {
                say(getString(R.string.nothing, folder.path()));
            } else {
                list(runs, bundles);
            }
        } catch (Problem problem) {
            say(problem.getMessage());
        }
    }

    private void list(List<String> runs, List<String> bundles) {
        List<String> lines = new ArrayList<>();
        for (String run : runs) {
            lines.add(getString(R.string.run, run));
        }
        for (String bundle : bundles) {
            lines.add(getString(R.string.bundle, bundle));
        }
        ListView list = new ListView(this);
        list.setAdapter(new ArrayAdapter<>(this, android.R.layout.simple_list_item_1, lines));
        list.setOnItemClickListener((parent, view, position, id) -> {
            if (position < runs.size()) {
                startActivity(new Intent(this, RunActivity.class).putExtra(RunActivity.RUN, runs.get(position)));
            }
        });
        setContentView(list);
    }

    private void say(String text) {
        TextView view = new TextView(this);
        view.setText(text);
        setContentView(view);
    }
}
