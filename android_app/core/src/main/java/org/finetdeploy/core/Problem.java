package org.finetdeploy.core;

/** What a person can act on. Its message becomes the reason of an {@code invalid} record, or a line on stderr. */
public class Problem extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private static final int MAX_RUNTIME_MESSAGE = 200;

    /** @param message what was found, where, and what to do next */
    public Problem(String message) {
        super(message);
    }

    /** @param message what was found, where, and what to do next; {@code cause} is for a debugger only */
    public Problem(String message, Throwable cause) {
        super(message, cause);
    }

    /** A runtime's or the system's words: the first line, 200 characters at most, never null. */
    public static String firstLine(Throwable error) {
        String text = error.getMessage();
        if (text == null || text.trim().isEmpty()) {
            return error.getClass().getSimpleName();
        }
        return firstLine(text.trim());
    }

    /** The first line of {@code text}, 200 characters at most. */
    public static String firstLine(String text) {
        int end = text.indexOf('\n');
        String line = end < 0 ? text : text.substring(0, end);
        return line.length() > MAX_RUNTIME_MESSAGE ? line.substring(0, MAX_RUNTIME_MESSAGE) : line;
    }
}
