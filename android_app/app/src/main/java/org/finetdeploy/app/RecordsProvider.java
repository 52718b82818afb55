package org.finetdeploy.app;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.database.Cursor;
import android.database.MatrixCursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import android.provider.OpenableColumns;

import java.io.File;
import java.io.FileNotFoundException;

import org.finetdeploy.core.Problem;
import org.finetdeploy.core.run.RunFolder;

/** Record files, to be read by an app with which the user shares one; by nobody else: it is not exported. */
public final class RecordsProvider extends ContentProvider {
    static final String AUTHORITY = "org.finetdeploy.app.records";
    private static final String TYPE = "application/x-ndjson";

    /** The address of a run's records; the app that gets it needs {@code FLAG_GRANT_READ_URI_PERMISSION}. */
    static Uri of(String run) {
        return new Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(run).build();
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
            cursor.addRow(new Object[] {uri.getLastPathSegment() + "-" + RunFolder.RECORDS, file.length()});
        } catch (FileNotFoundException absent) {
            return cursor;
        }
        return cursor;
    }

    private File file(Uri uri) throws FileNotFoundException {
        String run = uri.getLastPathSegment();
        try {
            AppFolder folder = new AppFolder(getContext());
            if (folder.runs().contains(run)) {
                return folder.resolve(run + "/" + RunFolder.RECORDS).toFile();
            }
        } catch (Problem problem) {
            throw new FileNotFoundException(problem.getMessage());
        }
        throw new FileNotFoundException("no run " + run);
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
