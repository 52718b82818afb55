package org.finetdeploy.app;

import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.Service;
import android.content.Intent;
import android.content.pm.ServiceInfo;
import android.os.Build;
import android.os.IBinder;
import android.os.PowerManager;
import android.os.Process;
import android.system.ErrnoException;
import android.system.Os;
import android.util.Log;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Version;
import org.finetdeploy.core.engine.Engines;
import org.finetdeploy.core.files.Files;
import org.finetdeploy.core.protocol.RecordFile;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.protocol.VisitRequest;
import org.finetdeploy.core.visit.Clock;
import org.finetdeploy.core.visit.Visit;
import org.finetdeploy.engines.ExecuTorchEngine;
import org.finetdeploy.engines.OnnxRuntimeEngine;
import org.finetdeploy.engines.TorchMobileEngine;

/**
 * One visit in a process of its own, which ends with it: the next visit finds no warm runtime. Started by adb, whose
 * shell holds the permission that the manifest asks for; request and records are files of the app's folder.
 */
public final class VisitService extends Service {
    /** Extra: path of the request in the app's folder. */
    public static final String REQUEST = "request";
    /** Extra: path in the app's folder at which the records appear when they are complete. */
    public static final String RECORDS = "records";
    /** Added to the name of the records: why there are none. */
    public static final String REFUSED = ".refused";
    /** Extra, optional: path in the app's folder for the outputs of all golden inputs. */
    public static final String OUTPUTS = "outputs";

    private static final String TAG = "finet-bench";
    private static final String CHANNEL = "measuring";
    private static final int NOTIFICATION = 1;
    private static final long LONGEST_VISIT_MS = 3_600_000;

    private boolean started;

    @Override
    public IBinder onBind(Intent intent) {
        return null;
    }

    @Override
    public int onStartCommand(Intent intent, int flags, int startId) {
        show();
        if (intent == null || started) {
            Log.e(TAG, started ? "busy with another visit" : "no request");
            return START_NOT_STICKY;
        }
        started = true;
        new Thread(() -> visit(intent), "finet-visit").start();
        return START_NOT_STICKY;
    }

    private void show() {
        NotificationManager manager = getSystemService(NotificationManager.class);
        manager.createNotificationChannel(
                new NotificationChannel(CHANNEL, getString(R.string.channel), NotificationManager.IMPORTANCE_LOW));
        Notification notification = new Notification.Builder(this, CHANNEL)
                .setSmallIcon(android.R.drawable.ic_media_play)
                .setContentTitle(getString(R.string.measuring))
                .build();
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE) {
            startForeground(NOTIFICATION, notification, ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE);
        } else {
            startForeground(NOTIFICATION, notification);
        }
    }

    private void visit(Intent intent) {
        PowerManager.WakeLock awake =
                getSystemService(PowerManager.class).newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, TAG + ":visit");
        awake.acquire(LONGEST_VISIT_MS);
        try {
            Os.setenv(OnnxRuntimeEngine.TELEMETRY_OFF, "1", true);
            run(intent);
        } catch (Problem | ErrnoException | IOException problem) {
            Log.e(TAG, problem.getMessage());
            refuse(intent, problem.getMessage());
        } finally {
            awake.release();
            stopSelf();
            Process.killProcess(Process.myPid());
        }
    }

    private void run(Intent intent) throws IOException {
        AppFolder folder = new AppFolder(this);
        VisitRequest request = VisitRequest.read(folder.resolve(extra(intent, REQUEST)), Schema.load());
        folder.check(request.artifact);
        folder.check(request.golden);
        String outputs = intent.getStringExtra(OUTPUTS);
        Engines engines = new Engines(new ExecuTorchEngine(), new OnnxRuntimeEngine(), new TorchMobileEngine());
        String runner = "finet-deploy " + Version.TOOL + " app on Android " + Build.VERSION.RELEASE;
        try (RecordFile records = new RecordFile(folder.resolve(extra(intent, RECORDS)))) {
            new Visit(request, engines, new AndroidProbes(this), runner, Clock.SYSTEM, records)
                    .run(outputs == null ? null : folder.resolve(outputs));
            records.finish();
        }
    }

    /** A request that is none has no records: a line of text beside where they would be tells why. */
    private void refuse(Intent intent, String reason) {
        try {
            Path records = new AppFolder(this).resolve(extra(intent, RECORDS));
            byte[] line = (reason + "\n").getBytes(StandardCharsets.UTF_8);
            Files.writeWhole(records.resolveSibling(records.getFileName() + REFUSED), line);
        } catch (Problem nowhere) {
            Log.e(TAG, nowhere.getMessage());
        }
    }

    private static String extra(Intent intent, String name) {
        String value = intent.getStringExtra(name);
        if (value == null) {
            throw new Problem("the intent has no extra '" + name + "'");
        }
        return value;
    }
}
