package org.finetdeploy.core.files;

import java.io.ByteArrayOutputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

import org.finetdeploy.core.Problem;

/** Files, read with distrust: bounded, errors in words. Writers write to a temporary name, then rename. */
public final class CheckedFiles {
    private static final int BLOCK_BYTES = 1 << 20;

    private CheckedFiles() {}

    /** All of a file that must not be larger than {@code maxBytes}; Problem when it is, or cannot be read. */
    public static byte[] readBounded(Path path, int maxBytes) {
        try (InputStream stream = Files.newInputStream(path)) {
            ByteArrayOutputStream data = new ByteArrayOutputStream();
            byte[] block = new byte[64 << 10];
            int wanted = maxBytes + 1;
            int got = 0;
            while (data.size() < wanted && got >= 0) {
                got = stream.read(block, 0, Math.min(block.length, wanted - data.size()));
                data.write(block, 0, Math.max(got, 0));
            }
            if (data.size() > maxBytes) {
                throw new Problem("file is larger than " + maxBytes + " bytes: " + path);
            }
            return data.toByteArray();
        } catch (IOException error) {
            throw cannot("read", path, error);
        }
    }

    /** Hex SHA-256 of a file of any size; Problem when it cannot be read. */
    public static String sha256(Path path) {
        MessageDigest digest;
        try {
            digest = MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error); // every Java and every Android has it
        }
        try (InputStream stream = Files.newInputStream(path)) {
            byte[] block = new byte[BLOCK_BYTES];
            int got = stream.read(block);
            while (got >= 0) {
                digest.update(block, 0, got);
                got = stream.read(block);
            }
        } catch (IOException error) {
            throw cannot("read", path, error);
        }
        StringBuilder hex = new StringBuilder();
        for (byte value : digest.digest()) {
            hex.append(Character.forDigit((value >> 4) & 15, 16)).append(Character.forDigit(value & 15, 16));
        }
        return hex.toString();
    }

    /** Writes {@code data} so that {@code path} holds either its old content or all of the new one. */
    public static void writeWhole(Path path, byte[] data) {
        Path part = path.resolveSibling(path.getFileName() + ".part");
        try {
            Files.write(part, data);
            rename(part, path);
        } catch (IOException error) {
            part.toFile().delete();
            throw cannot("write", path, error);
        }
    }

    /** {@code folder/relative}; Problem when it is absolute, climbs out with {@code ..}, or a link leads out. */
    public static Path inside(Path folder, String relative) {
        try {
            Path root = folder.toRealPath();
            Path path = root.resolve(relative).normalize();
            Path real = path.toFile().getCanonicalFile().toPath();
            if (relative.isEmpty() || path.equals(root) || !path.startsWith(root) || !real.startsWith(root)) {
                throw new Problem("path '" + relative + "' leaves its folder [" + folder + "]");
            }
            return real;
        } catch (InvalidPathException error) {
            throw new Problem("'" + Problem.firstLine(relative) + "' is no path", error);
        } catch (IOException error) {
            throw cannot("read", folder, error);
        }
    }

    /** Gives a finished file its name, in place of an older one. */
    public static void rename(Path from, Path to) throws IOException {
        Files.move(from, to, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }

    /** {@code cannot <action>: <the system's words>: <path>}. */
    public static Problem cannot(String action, Path path, IOException error) {
        return new Problem("cannot " + action + ": " + reason(error) + ": " + path, error);
    }

    /** Java's file errors carry the path where other systems carry the reason. */
    private static String reason(IOException error) {
        if (error instanceof NoSuchFileException || error instanceof FileNotFoundException) {
            return "No such file or directory";
        }
        if (error instanceof AccessDeniedException) {
            return "Permission denied";
        }
        String reason = error instanceof FileSystemException ? ((FileSystemException) error).getReason() : null;
        return reason != null ? reason : Problem.firstLine(error);
    }
}
