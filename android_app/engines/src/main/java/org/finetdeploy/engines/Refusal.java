package org.finetdeploy.engines;

import org.finetdeploy.core.Problem;

/** What runtimes throw, in the words of the other runners. */
final class Refusal {
    private Refusal() {}

    /** A file that {@code runtime} cannot {@code load} or {@code run}. */
    static Problem of(String runtime, String what, Throwable error) {
        return new Problem(runtime + " cannot " + what + " this file: " + Problem.firstLine(error)
                + "; it is damaged, or made for another version: export the bundle again", error);
    }

    /** A library that is not there, or does not fit. */
    static Problem library(Throwable error) {
        Throwable cause = error instanceof ExceptionInInitializerError && error.getCause() != null
                ? error.getCause()
                : error;
        return new Problem("cannot load the runtime: " + Problem.firstLine(cause)
                + "; the program is incomplete: build or install it again", error);
    }
}
