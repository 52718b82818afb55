package org.finetdeploy.app;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.content.Context;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import android.provider.OpenableColumns;

import java.io.File;
import java.io.FileNotFoundException;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.run.RunFolder;

/** Jobs and records, to be read by an app with which the user shares them; by nobody else: it is not exported. */
public final class RecordsProvider extends ContentProvider {
    static final String AUTHORITY = "org.finetdeploy.app.records";
    static final String TYPE = "application/json";
    /** The files of a run that are shared. */
    static final List<String> FILES =
            Collections.unmodifiableList(Arrays.asList(RunFolder.JOB, RunFolder.RECORDS));

    /** The address of a run's file; the app that gets it needs {@code FLAG_GRANT_READ_URI_PERMISSION}. */
    static Uri of(String run, String file) {
        return new Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(run).appendPath(file).build();
    }

    /** Whether there is anything to share. */
    static boolean hasRecords(Context context, String run) {
        try {
            return new AppFolder(context).resolve(run + "/" + RunFolder.RECORDS).toFile().isFile();
        } catch (Problem gone) {
            return false;
        }
    }

    @Override
    public ParcelFileDescriptor openFile(Uri uri, String mode) throws FileNotFoundException {
        if (!"r".equals(mode)) {
            throw new SecurityException("records are only read");
        }
        return ParcelFileDescriptor.open(file(uri), ParcelFileDescriptor.MODE_READ_ONLY);
    }

    @Override
    public Cursor query(Uri uri, String[] wanted, String selection, String[] arguments, String order) {
        MatrixCursor cursor = new MatrixCursor(new String[] {OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE});
        try {
            File file = file(uri);
            cursor.addRow(new Object[] {uri.getPathSegments().get(0) + "-" + file.getName(), file.length()});
        } catch (FileNotFoundException absent) {
            return cursor;
        }
        return cursor;
    }

    private File file(Uri uri) throws FileNotFoundException {
        List<String> path = uri.getPathSegments();
        try {
            AppFolder folder = new AppFolder(getContext());
            if (path.size() == 2 && folder.runs().contains(path.get(0)) && FILES.contains(path.get(1))) {
                return folder.resolve(path.get(0) + "/" + path.get(1)).toFile();
            }
        } catch (Problem problem) {
            throw new FileNotFoundException(problem.getMessage());
        }
        throw new FileNotFoundException("no file of a run: " + uri);
    }

    @Override
    public boolean onCreate() {
        return true;
    }

    @Override
    public String getType(Uri uri) {
        return TYPE;
    }

    @Override
    public Uri insert(Uri uri, ContentValues values) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int delete(Uri uri, String selection, String[] arguments) {
        throw new UnsupportedOperationException();
    }

    @Override
    public int update(Uri uri, ContentValues values, String selection, String[] arguments) {
        throw new UnsupportedOperationException();
    }
}
