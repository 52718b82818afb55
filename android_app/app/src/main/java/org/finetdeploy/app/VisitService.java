package org.finetdeploy.app;

import android.app.Notification;
import android.app.NotificationChannel;
import android.app.NotificationManager;
import android.app.Service;
import android.content.Intent;
import android.content.pm.ServiceInfo;
import android.os.Build;
import android.os.IBinder;
import android.os.Process;
import android.system.ErrnoException;
import android.system.Os;
import android.util.Log;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.Version;
import org.finetdeploy.core.files.CheckedFiles;
import org.finetdeploy.core.protocol.RecordFile;
import org.finetdeploy.core.protocol.Schema;
import org.finetdeploy.core.protocol.VisitRequest;
import org.finetdeploy.core.visit.Clock;
import org.finetdeploy.core.visit.Visit;
import org.finetdeploy.engines.OnnxRuntimeEngine;

/**
 * One visit in a process of its own, which ends with it: the next visit finds no warm runtime. Started by adb, whose
 * shell holds the permission that the manifest asks for, or by the app; request and records are files of its folder.
 */
public final class VisitService extends Service {
    /** Extra: path of the request in the app's folder. */
    public static final String REQUEST = "request";
    /** Extra: path in the app's folder at which the records appear when they are complete. */
    public static final String RECORDS = "records";
    /** Extra, optional: path in the app's folder for the outputs of all golden inputs. */
    public static final String OUTPUTS = "outputs";
    /** Extra, optional: true when a window of the app holds the sustained-performance mode. */
    public static final String SUSTAINED = "sustained";

    private static final String TAG = "finet-bench";
    private static final String CHANNEL = "measuring";
    private static final int NOTIFICATION = 1;

    private Intent visiting;

    @Override
    public IBinder onBind(Intent intent) {
        return null;
    }

    @Override
    public int onStartCommand(Intent intent, int flags, int startId) {
        show();
        if (visiting != null) {
            busy(intent);
        } else if (intent == null) { // Android keeps no request of this service, and starts it with none
            stopSelf();
        } else {
            visiting = intent;
            new Thread(() -> visit(intent), "finet-visit").start();
        }
        return START_NOT_STICKY;
    }

    /** Whoever waits for these records is told, unless they are those that are being written. */
    private void busy(Intent intent) {
        Log.e(TAG, "busy with another visit");
        String wanted = intent == null ? null : intent.getStringExtra(RECORDS);
        if (wanted != null && !wanted.equals(visiting.getStringExtra(RECORDS))) {
            refuse(intent, "busy with another visit; wait for its end");
        }
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
        AwakePhone awake = new AwakePhone(this);
        try {
            Os.setenv(OnnxRuntimeEngine.TELEMETRY_OFF, "1", true);
            run(intent);
        } catch (Problem | ErrnoException | IOException problem) {
            Log.e(TAG, problem.getMessage());
            refuse(intent, problem.getMessage());
        } catch (RuntimeException | Error error) { // the process ends before Android would log it
            Log.e(TAG, "the app failed", error);
            refuse(intent, "the app failed: " + error);
        } finally {
            awake.release();
            stopSelf();
            Process.killProcess(Process.myPid());
        }
    }

    private void run(Intent intent) throws IOException {
        AppFolder folder = new AppFolder(this);
        Path to = folder.resolve(extra(intent, RECORDS));
        Files.deleteIfExists(to); // an earlier visit's must not be taken for this one's
        Files.deleteIfExists(refusal(to));
        VisitRequest request = VisitRequest.read(folder.resolve(extra(intent, REQUEST)), Schema.load());
        folder.check(request.artifact);
        folder.check(request.golden);
        String outputs = intent.getStringExtra(OUTPUTS);
        AndroidProbes probes = new AndroidProbes(this, intent.getBooleanExtra(SUSTAINED, false));
        String runner = "finet-deploy " + Version.TOOL + " app on Android " + Build.VERSION.RELEASE;
        try (RecordFile records = new RecordFile(to)) {
            new Visit(request, AppEngines.all(this), probes, runner, Clock.SYSTEM, records)
                    .run(outputs == null ? null : folder.resolve(outputs));
            records.finish();
        }
    }

    /** A request that is none has no records: a line of text beside where they would be tells why. */
    private void refuse(Intent intent, String reason) {
        try {
            Path records = new AppFolder(this).resolve(extra(intent, RECORDS));
            CheckedFiles.writeWhole(refusal(records), (reason + "\n").getBytes(StandardCharsets.UTF_8));
        } catch (Problem nowhere) {
            Log.e(TAG, nowhere.getMessage());
        }
    }

    private static Path refusal(Path records) {
        return records.resolveSibling(records.getFileName() + RecordFile.REFUSED);
    }

    private static String extra(Intent intent, String name) {
        String value = intent.getStringExtra(name);
        if (value == null) {
            throw new Problem("the intent has no extra '" + name + "'");
        }
        return value;
    }
}
