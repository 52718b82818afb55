package org.finetdeploy.app;

import static org.junit.Assert.assertNotNull;
import static org.junit.Assert.assertTrue;

import android.app.Activity;
import android.app.Application;
import android.os.Looper;
import android.view.View;
import android.view.ViewGroup;
import android.widget.TextView;

import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;

import org.robolectric.RuntimeEnvironment;
import org.robolectric.Shadows;

/** The app on Robolectric, with its folder and what the tests put there. */
final class AppSandbox {
    private static final int STEP_MS = 20;
    private static final int STEPS = 1500;

    final Application application = RuntimeEnvironment.getApplication();
    final File root = application.getExternalFilesDir(null);

    /** A file of {@code tests/data}. */
    static Path golden(String name) {
        return Paths.get(System.getProperty("finet.golden"), name);
    }

    File write(String name, String text) throws Exception {
        Path path = new File(root, name).toPath();
        Files.createDirectories(path.getParent());
        return Files.write(path, text.getBytes(StandardCharsets.UTF_8)).toFile();
    }

    /** A shipped bundle of {@code tests/data/plan} in the app's folder. */
    void bundle(String name) throws Exception {
        Path folder = Files.createDirectories(new File(root, name).toPath());
        try (Stream<Path> files = Files.list(golden("plan/" + name))) {
            for (Path file : (Iterable<Path>) files::iterator) {
                Files.copy(file, folder.resolve(file.getFileName()));
            }
        }
    }

    String read(String name) throws Exception {
        return new String(Files.readAllBytes(new File(root, name).toPath()), StandardCharsets.UTF_8);
    }

    /** Waits for what another thread does, and lets the main thread do what it was handed. */
    static void await(String what, BooleanSupplier done) throws InterruptedException {
        for (int i = 0; i < STEPS && !done.getAsBoolean(); i++) {
            Thread.sleep(STEP_MS);
            Shadows.shadowOf(Looper.getMainLooper()).idle();
        }
        assertTrue(what, done.getAsBoolean());
    }

    /** The first view of this kind on the screen that shows {@code text}, or any where that is null. */
    static <V extends View> V find(Activity activity, Class<V> kind, String text) {
        V found = find(activity.findViewById(android.R.id.content), kind, text);
        assertNotNull(text, found);
        return found;
    }

    private static <V extends View> V find(View view, Class<V> kind, String text) {
        boolean shows = text == null
                || (view instanceof TextView && text.contentEquals(((TextView) view).getText()));
        if (view.getClass() == kind && shows) {
            return kind.cast(view);
        }
        if (view instanceof ViewGroup) {
            ViewGroup group = (ViewGroup) view;
            for (int i = 0; i < group.getChildCount(); i++) {
                V found = find(group.getChildAt(i), kind, text);
                if (found != null) {
                    return found;
                }
            }
        }
        return null;
    }
}
