package org.finetdeploy.core.plan;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The order of the visits, as {@code finet_deploy/bench/schedule.py} has it and explains it. No chance is in it. */
final class Schedule {
    private Schedule() {}

    /** For each of {@code rounds} the order of {@code count} items: the rows of Williams' square. */
    static int[][] rotation(int count, int rounds) {
        int[][] orders = new int[rounds][count];
        for (int round = 0; round < rounds; round++) {
            long shift = rounds < count ? (long) round * count / rounds : round;
            for (int i = 0; i < count; i++) {
                int zigzag = i % 2 == 1 ? (i + 1) / 2 : (count - i / 2) % count;
                orders[round][i] = (int) ((zigzag + shift) % count);
            }
        }
        return orders;
    }

    /** {@code Visit}s of all rounds; {@code groups} are the row ids of each runtime, which follow one another. */
    static List<Object> visits(List<List<String>> groups, int rounds) {
        List<int[][]> rowOrders = new ArrayList<>();
        for (List<String> rows : groups) {
            rowOrders.add(rotation(rows.size(), rounds));
        }
        int[][] groupOrders = rotation(groups.size(), rounds);
        List<Object> visits = new ArrayList<>();
        for (int round = 0; round < rounds; round++) {
            int position = 0;
            for (int group : groupOrders[round]) {
                for (int item : rowOrders.get(group)[round]) {
                    Map<String, Object> visit = new LinkedHashMap<>();
                    visit.put("index", (long) visits.size());
                    visit.put("round", (long) round);
                    visit.put("position", (long) position++);
                    visit.put("row", groups.get(group).get(item));
                    visits.add(visit);
                }
            }
        }
        return visits;
    }
}
