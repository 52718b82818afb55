package org.finetdeploy.app;

import android.app.Activity;
import android.os.Bundle;
import android.view.WindowManager;
import android.widget.ArrayAdapter;
import android.widget.ListView;
import android.widget.TextView;

import java.util.List;

import org.finetdeploy.core.Problem;

/** Lists the bundles that were pushed to the app's folder. */
public final class MainActivity extends Activity {
    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        getWindow().addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON);
        try {
            AppFolder folder = new AppFolder(this);
            List<String> bundles = folder.bundles();
            if (bundles.isEmpty()) {
                say(getString(R.string.no_bundles, folder.path()));
            } else {
                ListView list = new ListView(this);
                list.setAdapter(new ArrayAdapter<>(this, android.R.layout.simple_list_item_1, bundles));
                setContentView(list);
            }
        } catch (Problem problem) {
            say(problem.getMessage());
        }
    }

    private void say(String text) {
        TextView view = new TextView(this);
        view.setText(text);
        setContentView(view);
    }
}
